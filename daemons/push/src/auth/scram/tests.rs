use super::*;

use proptest::prelude::*;

/// A verifier of `password`, as a client and `sextant push passwd` make it.
pub(crate) fn verifier(password: &str, salt: &[u8], iterations: u32) -> Verifier {
    let salted = salted(password, salt, iterations);
    let client_key = hmac(&salted, &[b"Client Key"]);
    Verifier {
        iterations,
        salt: salt.to_vec(),
        stored_key: Sha256::digest(client_key).into(),
        server_key: hmac(&salted, &[b"Server Key"]),
    }
}

/// `Hi` of RFC 5802, section 2.2.
fn salted(password: &str, salt: &[u8], iterations: u32) -> Key {
    let mut last = hmac(password.as_bytes(), &[salt, &1u32.to_be_bytes()]);
    let mut all = last;
    for _ in 1..iterations {
        last = hmac(password.as_bytes(), &[&last]);
        all.iter_mut().zip(last).for_each(|(all, last)| *all ^= last);
    }
    all
}

/// The last message of a client that knows `password`.
fn proof(password: &str, first: &str, challenge: &str, binding: &str) -> String {
    let part = |at: usize| challenge.split(',').nth(at).unwrap()[2..].to_owned();
    let (nonce, salt) = (part(0), STANDARD.decode(part(1)).unwrap());
    let salted = salted(password, &salt, part(2).parse().unwrap());
    let client_key = hmac(&salted, &[b"Client Key"]);
    let without_proof = format!("c={},r={nonce}", STANDARD.encode(binding));
    let message = format!("{},{challenge},{without_proof}", &first[3..]);
    let signature = hmac(&Sha256::digest(client_key), &[message.as_bytes()]);
    let proof: Key = std::array::from_fn(|at| client_key[at] ^ signature[at]);
    format!("{without_proof},p={}", STANDARD.encode(proof))
}

const FIRST: &str = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";

fn pencil() -> Arc<Verifier> {
    let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
    Arc::new(verifier("pencil", &salt, 4096))
}

fn begun(random: u8) -> (Exchange, String) {
    Exchange::begin(&First::parse(FIRST.as_bytes()).unwrap(), pencil(), [random; NONCE_BYTES])
}

#[test]
fn the_exchange_of_rfc_7677_is_as_printed_there() {
    let first = First::parse(FIRST.as_bytes()).unwrap();
    assert_eq!(first.user().unwrap(), "user");
    let more = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    let (exchange, challenge) = Exchange::begin_with(&first, pencil(), more);
    assert_eq!(
        challenge,
        format!("r=rOprNGfwEbeRWgbNEkqO{more},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096")
    );
    let last = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    assert_eq!(proof("pencil", FIRST, &challenge, "n,,"), last);
    let answer = exchange.finish(last.as_bytes()).unwrap();
    assert_eq!(answer, "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
}

#[test]
fn a_wrong_password_and_a_user_that_does_not_exist_fail_at_the_same_place() {
    let (exchange, challenge) = begun(1);
    let last = proof("pencils", FIRST, &challenge, "n,,");
    assert_eq!(exchange.finish(last.as_bytes()), Err(ScramError::Proof));
    let decoy = |name| Arc::new(Verifier::decoy(name, 4096, b"key"));
    let first = First::parse(FIRST.as_bytes()).unwrap();
    let (exchange, challenge) = Exchange::begin(&first, decoy("user"), [1; NONCE_BYTES]);
    let last = proof("pencil", FIRST, &challenge, "n,,");
    assert_eq!(exchange.finish(last.as_bytes()), Err(ScramError::Proof));
    assert_eq!(decoy("user"), decoy("user"), "its salt stays");
    assert_ne!(decoy("user").salt, decoy("other").salt);
}

#[test]
fn an_exchange_that_was_overheard_is_worth_nothing() {
    let (exchange, challenge) = begun(1);
    let last = proof("pencil", FIRST, &challenge, "n,,");
    assert!(exchange.finish(last.as_bytes()).is_ok());
    let (again, _) = begun(2);
    assert_eq!(again.finish(last.as_bytes()), Err(ScramError::Message), "another nonce");
    // With the nonce that is asked for, its proof is of other messages.
    let (again, challenge) = begun(2);
    let nonce = challenge.split(',').next().unwrap();
    let (_, proof) = last.split_once(",p=").unwrap();
    let forged = format!("c=biws,{nonce},p={proof}");
    assert_eq!(again.finish(forged.as_bytes()), Err(ScramError::Proof));
}

#[test]
fn a_header_that_was_changed_on_the_way_is_found() {
    for (sent, bound) in [("n,,", "y,,"), ("y,,", "n,,"), ("n,,", "p=tls-unique,,"), ("n,,", "")] {
        let message = FIRST.replacen("n,,", sent, 1);
        let first = First::parse(message.as_bytes()).unwrap();
        let (exchange, challenge) = Exchange::begin(&first, pencil(), [1; NONCE_BYTES]);
        let last = proof("pencil", &message, &challenge, bound);
        assert_eq!(exchange.finish(last.as_bytes()), Err(ScramError::Message), "{sent} {bound}");
    }
    let message = FIRST.replacen("n,,", "y,,", 1);
    let first = First::parse(message.as_bytes()).unwrap();
    let (exchange, challenge) = Exchange::begin(&first, pencil(), [1; NONCE_BYTES]);
    assert!(exchange.finish(proof("pencil", &message, &challenge, "y,,").as_bytes()).is_ok());
}

#[test]
fn what_is_no_first_message_is_refused() {
    for text in [
        "",
        "n,,",
        "n,,n=user",
        "n,,r=nonce,n=user",
        "n,,n=,r=nonce",
        "n,,n=user,r=",
        "n,,n=user,r=no nce",
        "n,,n=user,r=non\u{e9}",
        "n,,m=ext,n=user,r=nonce",
        "n,a=admin,n=user,r=nonce",
        "p=tls-unique,,n=user,r=nonce",
        "x,,n=user,r=nonce",
        "é,n=user,r=nonce",
    ] {
        assert_eq!(First::parse(text.as_bytes()), Err(ScramError::Message), "{text}");
    }
    assert!(First::parse(b"n,,n=\xff,r=nonce").is_err());
    let long = format!("n,,n=user,r={}", "x".repeat(NONCE_BYTES_MAX + 1));
    assert!(First::parse(long.as_bytes()).is_err());
    let name = |text: &str| First::parse(format!("n,,n={text},r=x").as_bytes()).unwrap().user();
    assert_eq!(name("a=2Cb=3Dc"), Ok("a,b=c".to_owned()));
    for wrong in ["a=", "a=2", "a=2c", "a=20", "=é"] {
        assert_eq!(name(wrong), Err(ScramError::Message), "{wrong}");
    }
}

#[test]
fn what_is_no_last_message_is_refused() {
    let (_, challenge) = begun(1);
    let good = proof("pencil", FIRST, &challenge, "n,,");
    let (head, code) = good.split_once(",p=").unwrap();
    let nonce = head.strip_prefix("c=biws,").unwrap();
    for text in [
        String::new(),
        head.to_owned(),
        format!("{head},p="),
        format!("{head},p=AAAA"),
        format!("{head},p={code}="),
        format!("{head},p=!{code}"),
        format!("{nonce},c=biws,p={code}"),
        format!("c=biws,p={code}"),
        format!("c=!!!!,{nonce},p={code}"),
        format!("c=biws,{nonce}x,p={code}"),
        "p=".repeat(1025),
    ] {
        let finished = begun(1).0.finish(text.as_bytes());
        assert_eq!(finished, Err(ScramError::Message), "{text}");
    }
    assert!(begun(1).0.finish(good.as_bytes()).is_ok());
    // An extension is part of what is proved.
    let extended = format!("{head},x=y,p={code}");
    assert_eq!(begun(1).0.finish(extended.as_bytes()), Err(ScramError::Proof));
}

#[test]
fn a_verifier_is_read_as_postgresql_writes_it() {
    let text = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$\
                WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:\
                wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
    assert_eq!(text.parse(), Ok((*pencil()).clone()));
    let key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let parse = |cost: &str, keys: &str| format!("SCRAM-SHA-256${cost}${keys}").parse::<Verifier>();
    let keys = format!("{key}:{key}");
    assert!(parse("4096:AAAAAAAAAAA=", &keys).is_ok());
    assert_eq!(parse("4095:AAAAAAAAAAA=", &keys), Err(VerifierError::Weak));
    assert_eq!(parse("4096:AAAAAAAAAA==", &keys), Err(VerifierError::Weak));
    assert_eq!(parse("10000001:AAAAAAAAAAA=", &keys), Err(VerifierError::Costly));
    for (cost, keys) in [
        ("4096", &*keys),
        ("x:AAAAAAAAAAA=", &keys),
        ("4096:!", &keys),
        ("4096:AAAAAAAAAAA=", key),
        ("4096:AAAAAAAAAAA=", "AAAA:AAAA"),
        ("4096:AAAAAAAAAAA=", ""),
    ] {
        assert_eq!(parse(cost, keys), Err(VerifierError::Form), "{cost} {keys}");
    }
    for text in ["", "hunter2", "SCRAM-SHA-1$4096:AAAAAAAAAAA=$a:b", "SCRAM-SHA-256$"] {
        assert_eq!(text.parse::<Verifier>(), Err(VerifierError::Form), "{text}");
    }
}

proptest! {
    #[test]
    fn no_message_panics(first in prop::collection::vec(any::<u8>(), 0..60), text in "[nyc=,rp23CDé]{0,40}") {
        let _ = First::parse(&first);
        if let Ok(first) = First::parse(text.as_bytes()) {
            let _ = first.user();
        }
        prop_assert!(begun(1).0.finish(&first).is_err());
        prop_assert!(begun(1).0.finish(text.as_bytes()).is_err());
    }
}
