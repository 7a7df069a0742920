//! Keys in `keys/` were made for these tests and are good for nothing else.

use super::*;

use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Value, json};
use sextant_service::config::{Secret, Span};

const SECRET: &str = "a secret that has sixty-four bytes, as HS512 wants of what it takes";
const NOW_S: u64 = 1_800_000_000;
const NOW_MS: u64 = NOW_S * 1000;

const P256: &[u8] = include_bytes!("keys/p256.pem");
const P384: &[u8] = include_bytes!("keys/p384.pem");
const ED25519: &[u8] = include_bytes!("keys/ed25519.pem");
const RSA_2048: &[u8] = include_bytes!("keys/rsa.pem");

fn public(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/auth/jwt/keys/{name}.pub.pem"))
}

fn with_secret() -> config::Jwt {
    config::Jwt { secret: Secret::new(SECRET), ..config::Jwt::default() }
}

fn with_public(names: &[&str]) -> config::Jwt {
    let public_keys = names.iter().map(|name| public(name)).collect();
    config::Jwt { public_keys, ..config::Jwt::default() }
}

fn verifier(jwt: &config::Jwt) -> Verifier {
    Verifier::load(jwt).unwrap()
}

fn hmac() -> EncodingKey {
    EncodingKey::from_secret(SECRET.as_bytes())
}

fn signed(algorithm: Algorithm, key: &EncodingKey, claims: &Value) -> String {
    encode(&Header::new(algorithm), claims, key).unwrap()
}

fn claims() -> Value {
    json!({"sub": "lamp", "exp": NOW_S + 60})
}

fn hs256(claims: &Value) -> String {
    signed(Algorithm::HS256, &hmac(), claims)
}

fn verify(verifier: &Verifier, token: &str) -> Result<Principal, JwtError> {
    assert!(looks_like_one(token.as_bytes()), "{token}");
    verifier.verify(token.as_bytes(), "c1", NOW_MS)
}

fn unsigned(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.", part(header), part(claims))
}

#[test]
fn a_token_of_every_kind_of_key_lets_its_subject_in() {
    let all = with_public(&["rsa", "p256", "p384", "ed25519"]);
    let all = verifier(&config::Jwt { secret: Secret::new(SECRET), ..all });
    let rsa = EncodingKey::from_rsa_pem(RSA_2048).unwrap();
    for (algorithm, key) in [
        (Algorithm::HS256, hmac()),
        (Algorithm::HS384, hmac()),
        (Algorithm::HS512, hmac()),
        (Algorithm::RS256, rsa.clone()),
        (Algorithm::RS512, rsa),
        (Algorithm::ES256, EncodingKey::from_ec_pem(P256).unwrap()),
        (Algorithm::ES384, EncodingKey::from_ec_pem(P384).unwrap()),
        (Algorithm::EdDSA, EncodingKey::from_ed_pem(ED25519).unwrap()),
    ] {
        let token = signed(algorithm, &key, &claims());
        let user = verify(&all, &token).unwrap_or_else(|why| panic!("{algorithm:?}: {why}"));
        assert_eq!((user.name(), user.is_device()), ("lamp", None));
        assert_eq!(user.expires_at(), Some(NOW_MS + 70_000), "the leeway is on top");
        // One bit of the signature, and of what is signed.
        for at in [token.len() - 10, token.find('.').unwrap() + 5] {
            let mut bytes = token.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            assert!(all.verify(&bytes, "c1", NOW_MS).is_err(), "{algorithm:?}");
        }
    }
}

#[test]
fn a_token_that_was_printed_in_a_standard_is_read() {
    // RFC 8037, appendix A.2 and A.4: the signature is right, and what it signs is no claims.
    let set = json!({"keys": [{"kty": "OKP", "crv": "Ed25519",
        "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]});
    let keys = key_set(set.to_string().as_bytes()).unwrap();
    let token = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPO\
                 t7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    let verifier = Verifier { keys, ..verifier(&with_secret()) };
    let Err(JwtError::Token(error)) = verify(&verifier, token) else {
        panic!("these are no claims")
    };
    assert!(matches!(error.kind(), jsonwebtoken::errors::ErrorKind::Json(_)), "{error:?}");
}

#[test]
fn no_algorithm_stands_in_for_another() {
    // A public key that is taken for a secret, which everybody could sign with.
    for name in ["rsa", "p256", "p384", "ed25519"] {
        let verifier = verifier(&with_public(&[name]));
        let pem = std::fs::read(public(name)).unwrap();
        let der = pem_key(&pem).unwrap().key;
        let raw = der.try_get_as_bytes().unwrap();
        for secret in [&pem[..], raw] {
            for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
                let token = signed(algorithm, &EncodingKey::from_secret(secret), &claims());
                assert!(matches!(verify(&verifier, &token), Err(JwtError::NoKey)), "{name}");
            }
        }
    }
    let verifier = verifier(&with_secret());
    for algorithm in ["none", "None", "nOnE", ""] {
        let token = unsigned(&json!({"alg": algorithm, "typ": "JWT"}), &claims());
        assert!(verify(&verifier, &token).is_err(), "{algorithm}");
    }
    // The algorithm of a signature is that of its header.
    let token = unsigned(&json!({"alg": "HS256"}), &claims());
    assert!(verify(&verifier, &token).is_err());
    let other = signed(Algorithm::HS256, &EncodingKey::from_secret(&[7; 32]), &claims());
    assert!(verify(&verifier, &other).is_err());
}

#[test]
fn a_key_that_a_token_brings_along_is_not_looked_at() {
    let key = EncodingKey::from_ec_pem(P256).unwrap();
    let mut header = Header::new(Algorithm::ES256);
    header.jwk = Some(Jwk::from_encoding_key(&key, Algorithm::ES256).unwrap());
    let token = encode(&header, &claims(), &key).unwrap();
    assert!(matches!(verify(&verifier(&with_public(&["ed25519"])), &token), Err(JwtError::NoKey)));
    assert!(verify(&verifier(&with_public(&["ed25519", "p256"])), &token).is_ok());
}

#[test]
fn a_critical_extension_is_not_passed_over() {
    let mut header = Header::new(Algorithm::HS256);
    header.crit = Some(vec!["b64".to_owned()]);
    let token = encode(&header, &claims(), &hmac()).unwrap();
    assert!(matches!(verify(&verifier(&with_secret()), &token), Err(JwtError::Critical)));
}

#[test]
fn times_are_compared_with_the_leeway() {
    let verifier = verifier(&with_secret());
    let at = |claims: Value| verify(&verifier, &hs256(&claims));
    assert!(at(json!({"sub": "a", "exp": NOW_S - 9})).is_ok());
    for exp in [json!(NOW_S - 10), json!(0), json!(-1), json!(-1e300)] {
        let result = at(json!({"sub": "a", "exp": exp}));
        assert!(matches!(result, Err(JwtError::Expired)), "{exp} {result:?}");
    }
    assert!(at(json!({"sub": "a", "exp": 1e300})).is_ok());
    assert!(at(json!({"sub": "a", "exp": NOW_S as f64 + 0.5})).is_ok());
    assert!(matches!(at(json!({"sub": "a"})), Err(JwtError::NoExpiry)));
    assert!(at(json!({"sub": "a", "exp": "tomorrow"})).is_err());
    assert!(at(json!({"sub": "a", "exp": NOW_S + 60, "nbf": NOW_S + 10})).is_ok());
    let early = at(json!({"sub": "a", "exp": NOW_S + 60, "nbf": NOW_S + 11}));
    assert!(matches!(early, Err(JwtError::NotYet)));
    let endless = config::Jwt { expiry_required: false, ..with_secret() };
    let endless = verify(&self::verifier(&endless), &hs256(&json!({"sub": "a"}))).unwrap();
    assert_eq!(endless.expires_at(), None);
}

#[test]
fn who_signs_and_whom_for_is_compared() {
    let jwt = config::Jwt {
        audience: vec!["push".to_owned(), "mqtt".to_owned()],
        issuer: vec!["https://id.example".to_owned()],
        ..with_secret()
    };
    let verifier = verifier(&jwt);
    let with = |more: &[(&str, Value)]| {
        let mut claims = claims();
        more.iter().for_each(|(name, value)| claims[*name] = value.clone());
        verify(&verifier, &hs256(&claims)).is_ok()
    };
    let iss = ("iss", json!("https://id.example"));
    assert!(with(&[iss.clone(), ("aud", json!("mqtt"))]));
    assert!(with(&[iss.clone(), ("aud", json!(["web", "push"]))]));
    for aud in [json!("web"), json!([]), json!(["web"]), json!(1), Value::Null] {
        assert!(!with(&[iss.clone(), ("aud", aud.clone())]), "{aud}");
    }
    assert!(!with(std::slice::from_ref(&iss)), "no audience");
    for iss in [json!("https://id.example/"), json!(""), Value::Null] {
        assert!(!with(&[("iss", iss.clone()), ("aud", json!("push"))]), "{iss}");
    }
    assert!(!with(&[("aud", json!("push"))]), "no issuer");
    // Without one configured, a token for somebody else is still not for this daemon.
    let for_others = hs256(&json!({"sub": "a", "exp": NOW_S + 60, "aud": "web"}));
    assert!(verify(&self::verifier(&with_secret()), &for_others).is_err());
}

#[test]
fn a_bearer_may_do_what_the_token_and_the_configuration_say() {
    let verifier = verifier(&with_secret());
    let with = |allow: Value| {
        let claims = json!({"sub": "lamp", "exp": NOW_S + 60, "allow": allow});
        verify(&verifier, &hs256(&claims))
    };
    let plain = verify(&verifier, &hs256(&claims())).unwrap();
    assert!(plain.may_publish("d/lamp/up") && !plain.may_publish("d/c1/up"));
    let more = with(json!(["publish log/{user}/{client}", "subscribe news/#"])).unwrap();
    assert!(more.may_publish("d/lamp/up") && more.may_publish("log/lamp/c1"));
    assert!(more.may_subscribe("news/+") && !more.may_publish("news/a"));
    assert!(matches!(with(json!(["write a"])), Err(JwtError::Rule(_))));
    assert!(matches!(with(json!(vec!["all a"; RULES_MAX + 1])), Err(JwtError::Rules)));
    assert!(with(json!("all a")).is_err() && with(json!([1])).is_err());
}

#[test]
fn a_token_may_be_for_one_client_id_alone_and_names_its_user() {
    let verifier = verifier(&with_secret());
    let with = |sub: &str, client: Value| {
        let claims = json!({"sub": sub, "exp": NOW_S + 60, "client_id": client});
        verify(&verifier, &hs256(&claims))
    };
    assert!(with("a", json!("c1")).is_ok() && with("a", Value::Null).is_ok());
    assert!(matches!(with("a", json!("c2")), Err(JwtError::ClientId)));
    assert!(matches!(with("a", json!("")), Err(JwtError::ClientId)));
    assert!(matches!(with("", json!("c1")), Err(JwtError::Subject)));
    assert!(matches!(with(&"a".repeat(257), json!("c1")), Err(JwtError::Subject)));
    assert!(verify(&verifier, &hs256(&json!({"exp": NOW_S + 60}))).is_err());
    assert!(verify(&verifier, &hs256(&json!({"sub": 7, "exp": NOW_S + 60}))).is_err());
}

#[test]
fn a_key_of_a_set_is_found_by_its_id_and_has_its_uses() {
    let key = EncodingKey::from_ed_pem(ED25519).unwrap();
    let jwk = |more: Value| {
        let jwk = Jwk::from_encoding_key(&key, Algorithm::EdDSA).unwrap();
        let mut jwk = serde_json::to_value(&jwk).unwrap();
        jwk.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        jwk
    };
    let set = |keys: &[Value]| key_set(json!({"keys": keys}).to_string().as_bytes());
    let with = |keys: Vec<Key>, kid: Option<&str>| {
        let header = Header { kid: kid.map(str::to_owned), ..Header::new(Algorithm::EdDSA) };
        let verifier = Verifier { keys, ..verifier(&with_secret()) };
        verify(&verifier, &encode(&header, &claims(), &key).unwrap()).is_ok()
    };
    let named = || set(&[jwk(json!({"kid": "k1", "use": "sig", "alg": "EdDSA"}))]).unwrap();
    assert!(with(named(), Some("k1")) && with(named(), None));
    assert!(!with(named(), Some("k2")));
    for useless in [
        json!({"use": "enc"}),
        json!({"alg": "ES256"}),
        json!({"kty": "oct", "k": "c2VjcmV0"}),
        json!({"kty": "new"}),
    ] {
        assert!(set(&[jwk(useless.clone())]).is_err(), "{useless}");
        let both = set(&[jwk(useless), jwk(json!({"kid": "k1"}))]).unwrap();
        assert_eq!(both.len(), 1);
    }
    assert!(set(&[]).is_err() && key_set(b"[]").is_err() && key_set(b"{").is_err());
    assert!(set(&vec![jwk(json!({})); KEYS_MAX + 1]).is_err());
}

#[test]
fn a_file_that_holds_no_good_key_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    let with = |bytes: &[u8], jwt: config::Jwt| {
        std::fs::write(&path, bytes).unwrap();
        Verifier::load(&jwt).map(|_| ()).map_err(|error| error.to_string())
    };
    let pem = || config::Jwt { public_keys: vec![path.clone()], ..config::Jwt::default() };
    let secret = || config::Jwt { secret_file: Some(path.clone()), ..config::Jwt::default() };
    let set = || config::Jwt { jwks_file: Some(path.clone()), ..config::Jwt::default() };
    let short = std::fs::read(public("short")).unwrap();
    for (bytes, why) in [
        (P256, "private key"),
        (RSA_2048, "private key"),
        (&short, "less than 2048"),
        (b"", "no public key"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "no public key"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "no public key"),
    ] {
        let error = with(bytes, pem()).unwrap_err();
        assert!(error.contains(why) && error.contains("/key"), "{error}");
    }
    assert!(with(&[b'x'; 31], secret()).unwrap_err().contains("32 bytes"));
    assert!(with(&[b'x'; 31], set()).is_err());
    assert!(with(&vec![b' '; (256 << 10) + 1], set()).unwrap_err().contains("more than"));
    std::fs::write(&path, format!("{SECRET}\r\n")).unwrap();
    assert!(verify(&verifier(&secret()), &hs256(&claims())).is_ok());
    std::fs::remove_file(&path).unwrap();
    assert!(Verifier::load(&secret()).unwrap_err().to_string().contains("cannot read"));
}

#[test]
fn what_is_not_written_as_a_token_is_a_password() {
    for text in ["", "eyJ", "eyJ.a", "eyJ.a.b.c", "eyJ.a!.b", "a.b.c", "eyJ.ä.b", "eyJ.a.b "] {
        assert!(!looks_like_one(text.as_bytes()), "{text}");
    }
    assert!(looks_like_one(b"eyJ.a.b") && looks_like_one(b"eyJ.."));
}

proptest::proptest! {
    #[test]
    fn no_token_panics(parts in proptest::collection::vec(".{0,60}", 3), now in 0u64..) {
        let verifier = verifier(&config::Jwt { leeway: Span::secs(600), ..with_secret() });
        let part = |text: &String| URL_SAFE_NO_PAD.encode(text);
        let token = parts.iter().map(part).collect::<Vec<_>>().join(".");
        proptest::prop_assert!(verifier.verify(token.as_bytes(), "c", now).is_err());
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#);
        let token = format!("{header}.{}.{}", part(&parts[1]), parts[2]);
        proptest::prop_assert!(verifier.verify(token.as_bytes(), "c", now).is_err());
    }
}

#[test]
fn an_audience_or_issuer_that_is_no_name_is_not_taken_for_none() {
    let verifier = verifier(&with_secret());
    for (claim, wrong) in [
        ("aud", json!(5)),
        ("aud", json!({"a": "b"})),
        ("aud", json!([1])),
        ("aud", json!("others")),
        ("iss", json!(5)),
    ] {
        let mut claims = claims();
        claims[claim] = wrong.clone();
        assert!(verify(&verifier, &hs256(&claims)).is_err(), "{claim}: {wrong}");
    }
    let mut claims = claims();
    claims["iss"] = json!(["us", "them"]);
    assert!(verify(&verifier, &hs256(&claims)).is_ok());
}
