use super::*;

use sextant_service::config::Secret;

/// Of the password `right`, as cheap as argon2 gets.
fn cheap_hash() -> String {
    use argon2::password_hash::{PasswordHasher, SaltString};
    let salt = SaltString::encode_b64(&[9; 16]).unwrap();
    let params = argon2::Params::new(8, 1, 1, None).unwrap();
    let (algorithm, version) = (argon2::Algorithm::Argon2id, argon2::Version::V0x13);
    let hasher = argon2::Argon2::new(algorithm, version, params);
    hasher.hash_password(b"right", &salt).unwrap().to_string()
}

fn user(name: &str, allow: &[&str]) -> config::User {
    let allow = allow.iter().map(|&rule| rule.to_owned()).collect();
    let (password, scram) = (Secret::new(cheap_hash()), Secret::default());
    config::User { name: name.to_owned(), password, scram, allow }
}

fn key() -> TokenKey {
    TokenKey::from_bytes([1; 32])
}

fn with_users() -> Authenticator {
    let auth = config::Auth {
        anonymous: None,
        device_allow: vec!["subscribe news/#".to_owned()],
        users: vec![
            user("dashboard", &["publish d/+/cmd", "subscribe d/+/#", "all u/{user}/{client}/#"]),
            user("d7", &[]),
        ],
        ..config::Auth::default()
    };
    Authenticator::new(&auth, key())
}

fn open() -> Authenticator {
    Authenticator::new(&config::Auth::default(), key())
}

fn decide(
    authenticator: &Authenticator,
    client_id: &str,
    user_name: Option<&str>,
    password: Option<&str>,
) -> Decision {
    let (password, version) = (password.map(str::as_bytes), Version::V5);
    authenticator.decide(&Credentials { client_id, user_name, password, version }, 5_000_000)
}

fn refused(decision: Decision) -> Refusal {
    match decision {
        Decision::Refused(refusal) => refusal,
        Decision::Verify(verification) => match verification.run() {
            Verified::Refused(refusal) => refusal,
            Verified::Admitted(principal) => panic!("{principal:?} was let in"),
        },
        Decision::Admitted(principal) => panic!("{principal:?} was let in"),
    }
}

fn admitted(decision: Decision) -> Principal {
    match decision {
        Decision::Admitted(principal) => principal,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_user_is_let_in_with_its_password_and_has_its_rules() {
    let Decision::Verify(check) = decide(&with_users(), "c1", Some("dashboard"), Some("right"))
    else {
        panic!("a password takes a check");
    };
    assert!(!format!("{check:?}").contains("right"));
    let Verified::Admitted(user) = check.run() else { panic!("the password is right") };
    assert_eq!((user.name(), user.is_device()), ("dashboard", None));
    assert!(user.may_publish("d/x/cmd") && !user.may_publish("d/x/up"));
    assert!(user.may_subscribe("d/+/up") && !user.may_subscribe("#"));
    assert!(user.may_publish("u/dashboard/c1/a") && !user.may_publish("u/dashboard/c2/a"));
}

#[test]
fn wrong_and_missing_credentials_are_refused() {
    let auth = with_users();
    for (user, password, refusal) in [
        (None, None, Refusal::NotAuthorized),
        (None, Some("right"), Refusal::BadCredentials),
        (Some("dashboard"), Some("wrong"), Refusal::BadCredentials),
        (Some("dashboard"), Some(""), Refusal::BadCredentials),
        (Some("dashboard"), None, Refusal::BadCredentials),
        (Some("nobody"), Some("right"), Refusal::BadCredentials),
        (Some("nobody"), None, Refusal::BadCredentials),
        (Some(""), Some("right"), Refusal::BadCredentials),
    ] {
        assert_eq!(refused(decide(&auth, "c1", user, password)), refusal, "{user:?} {password:?}");
    }
}

#[test]
fn a_user_that_does_not_exist_takes_the_same_way_as_a_wrong_password() {
    let auth = with_users();
    let other = TokenKey::from_bytes([2; 32]);
    let forged = other.issue("nobody", 10_000).unwrap();
    let forged_too = other.issue_at("nobody", 10_000, 0).unwrap();
    for password in
        ["right", "sxd1.", "sxd2.", &forged, &forged_too, &"x".repeat(PASSWORD_BYTES_MAX)]
    {
        for name in ["dashboard", "nobody"] {
            let decision = decide(&auth, "c1", Some(name), Some(password));
            let Decision::Verify(check) = decision else { panic!("{name} {password}") };
            let Check::Password { hash, .. } = &check.0 else { panic!("{name} {password}") };
            assert!(hash.starts_with("$argon2id$v=19$m=8,t=1,p=1$"), "{hash}");
        }
    }
    let long = "x".repeat(PASSWORD_BYTES_MAX + 1);
    for name in ["dashboard", "nobody"] {
        let decision = decide(&auth, "c1", Some(name), Some(&long));
        assert!(matches!(decision, Decision::Refused(Refusal::BadCredentials)), "{decision:?}");
    }
}

#[test]
fn a_device_is_let_in_at_once_with_its_token_and_owns_its_topics() {
    let token = key().issue("d1", 10_000).unwrap();
    for auth in [with_users(), open()] {
        let device = admitted(decide(&auth, "d1", Some("d1"), Some(&token)));
        assert_eq!((device.name(), device.is_device()), ("d1", Some("d1")));
        assert!(device.may_publish("d/d1/up") && device.may_subscribe("d/d1/#"));
        assert!(!device.may_publish("d/d2/up") && !device.may_subscribe("d/+/up"));
        assert!(!device.may_publish("news/a"));
    }
    let device = admitted(decide(&with_users(), "d1", Some("d1"), Some(&token)));
    assert!(device.may_subscribe("news/+"));
}

#[test]
fn a_token_of_another_device_time_or_client_id_is_refused() {
    for auth in [with_users(), open()] {
        let token = key().issue("d1", 10_000).unwrap();
        let expired = key().issue("d1", 5_000).unwrap();
        let decision = decide(&auth, "d1", Some("d1"), Some(&expired));
        assert!(matches!(decision, Decision::Refused(Refusal::BadCredentials)), "{decision:?}");
        for client_id in ["d2", "", "d1 "] {
            let refusal = refused(decide(&auth, client_id, Some("d1"), Some(&token)));
            assert_eq!(refusal, Refusal::ClientIdNotValid);
        }
        for name in ["d2", "dashboard", "+", ""] {
            let refusal = refused(decide(&auth, name, Some(name), Some(&token)));
            assert_eq!(refusal, Refusal::BadCredentials, "{name}");
        }
    }
}

/// `phone` was registered, and its tokens were ended as often; nobody else was.
struct Registry(u32);

impl Generations for Registry {
    fn current(&self, device: &str) -> Option<u32> {
        (device == "phone").then_some(self.0)
    }
}

#[test]
fn a_registered_device_is_let_in_until_its_tokens_are_ended() {
    let with = |generations: Option<Arc<dyn Generations>>| {
        let elsewhere = Elsewhere { generations, ..elsewhere() };
        Authenticator::load(&config::Auth::default(), key(), &elsewhere).unwrap()
    };
    let ended = |times| with(Some(Arc::new(Registry(times))));
    let enters = |auth: &Authenticator, device: &str, token: &str| match decide(
        auth,
        device,
        Some(device),
        Some(token),
    ) {
        Decision::Admitted(device) => device.is_device().is_some(),
        Decision::Refused(Refusal::BadCredentials) => false,
        other => panic!("{other:?}"),
    };
    let plain = |device| key().issue(device, 10_000).unwrap();
    let of = |device, generation| key().issue_at(device, 10_000, generation).unwrap();
    assert!(enters(&ended(0), "phone", &plain("phone")));
    assert!(enters(&ended(0), "phone", &of("phone", 0)));
    assert!(!enters(&ended(1), "phone", &plain("phone")));
    assert!(!enters(&ended(1), "phone", &of("phone", 0)));
    assert!(enters(&ended(1), "phone", &of("phone", 1)));
    // Who is not registered has no generation.
    assert!(enters(&ended(1), "lamp", &plain("lamp")));
    assert!(!enters(&ended(1), "lamp", &of("lamp", 0)));
    // And without a registry nobody is.
    assert!(enters(&with(None), "phone", &plain("phone")));
    assert!(!enters(&with(None), "phone", &of("phone", 0)));
}

#[test]
fn a_configured_users_name_is_never_a_devices() {
    let token = key().issue("d7", 10_000).unwrap();
    let decision = decide(&with_users(), "d7", Some("d7"), Some(&token));
    assert_eq!(refused(decision), Refusal::BadCredentials);
}

#[test]
fn without_users_anybody_may_do_anything() {
    for (user, password) in [(None, None), (Some("x"), None), (Some("x"), Some("y"))] {
        let somebody = admitted(decide(&open(), "c1", user, password));
        assert_eq!((somebody.name(), somebody.is_device()), ("anonymous", None));
        assert!(somebody.may_publish("a/b") && somebody.may_subscribe("#"));
        assert!(somebody.may_subscribe("$SYS/#"));
    }
}

#[test]
fn anonymous_clients_beside_users_are_let_in_if_configured() {
    let auth = config::Auth {
        anonymous: Some(true),
        users: vec![user("dashboard", &[])],
        ..config::Auth::default()
    };
    let auth = Authenticator::new(&auth, key());
    assert_eq!(admitted(decide(&auth, "c", None, None)).name(), "anonymous");
    let refusal = refused(decide(&auth, "c", Some("dashboard"), Some("wrong")));
    assert_eq!(refusal, Refusal::BadCredentials);
    let closed = config::Auth { anonymous: Some(false), ..config::Auth::default() };
    let closed = Authenticator::new(&closed, key());
    assert_eq!(refused(decide(&closed, "c", None, None)), Refusal::NotAuthorized);
}

/// Signs for `sub`, with [`JWT_SECRET`].
fn jwt(sub: &str) -> String {
    let claims = serde_json::json!({"sub": sub, "exp": 6_000});
    let key = jsonwebtoken::EncodingKey::from_secret(JWT_SECRET.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap()
}

const JWT_SECRET: &str = "thirty-two bytes are what it takes";

fn with_jwt(users: Vec<config::User>) -> Authenticator {
    let jwt = config::Jwt { secret: Secret::new(JWT_SECRET), ..config::Jwt::default() };
    let auth = config::Auth { users, jwt, ..config::Auth::default() };
    Authenticator::load(&auth, key(), &elsewhere()).unwrap()
}

fn elsewhere() -> Elsewhere {
    let deliver: Deliver = Arc::new(|_, _, _| {});
    Elsewhere { deliver, counts: Arc::default(), generations: None }
}

#[test]
fn whom_nobody_here_knows_somebody_else_is_asked_of() {
    let http =
        config::Http { url: config::Url::new("http://127.0.0.1:1/"), ..config::Http::default() };
    let keys = config::Jwt { secret: Secret::new(JWT_SECRET), ..config::Jwt::default() };
    let users = vec![user("dashboard", &[])];
    let auth = config::Auth { users, jwt: keys, http, ..config::Auth::default() };
    let auth = Authenticator::load(&auth, key(), &elsewhere()).unwrap();
    let is_asked =
        |user: Option<&str>, password: Option<&str>| match decide(&auth, "c", user, password) {
            Decision::Verify(check) => matches!(check.0, Check::Question { .. }),
            _ => false,
        };
    for (user, password) in
        [(None, None), (None, Some("x")), (Some("lamp"), None), (Some("lamp"), Some("right"))]
    {
        assert!(is_asked(user, password), "{user:?} {password:?}");
    }
    assert!(is_asked(Some("lamp"), Some(&"x".repeat(http::PASSWORD_BYTES_MAX))));
    assert!(!is_asked(Some("lamp"), Some(&"x".repeat(http::PASSWORD_BYTES_MAX + 1))));
    assert!(!is_asked(Some("dashboard"), Some("wrong")) && !is_asked(Some("dashboard"), None));
    assert!(!is_asked(Some("lamp"), Some(&jwt("lamp"))));
    let token = TokenKey::from_bytes([2; 32]).issue("lamp", 10_000).unwrap();
    assert!(!is_asked(Some("lamp"), Some(&token)), "a forged token of a device");
}

fn verified(decision: Decision) -> Principal {
    let Decision::Verify(verification) = decision else { panic!("{decision:?}") };
    match verification.run() {
        Verified::Admitted(principal) => principal,
        Verified::Refused(refusal) => panic!("{refusal}"),
    }
}

#[test]
fn a_signed_token_lets_its_subject_in_whatever_the_user_name() {
    let auth = with_jwt(Vec::new());
    for name in [None, Some("somebody"), Some("")] {
        let lamp = verified(decide(&auth, "c1", name, Some(&jwt("lamp"))));
        assert_eq!((lamp.name(), lamp.is_device()), ("lamp", None));
        assert_eq!(lamp.expires_at(), Some(6_010_000));
        assert!(lamp.may_publish("d/lamp/up") && !lamp.may_publish("d/c1/up"));
    }
    let forged = jwt("lamp").replace("eyJ", "eyJ0");
    assert_eq!(refused(decide(&auth, "c1", None, Some(&forged))), Refusal::BadCredentials);
    let long = format!("{}.{}", jwt("lamp").rsplit_once('.').unwrap().0, "A".repeat(9000));
    let decision = decide(&auth, "c1", None, Some(&long));
    assert!(matches!(decision, Decision::Refused(Refusal::BadCredentials)), "{decision:?}");
    // With keys there is nobody without a name any more.
    assert_eq!(refused(decide(&auth, "c1", None, None)), Refusal::NotAuthorized);
}

#[test]
fn a_configured_user_has_a_password_and_no_token() {
    let auth = with_jwt(vec![user("dashboard", &[])]);
    let decision = decide(&auth, "c1", Some("dashboard"), Some(&jwt("dashboard")));
    assert_eq!(refused(decision), Refusal::BadCredentials);
    assert_eq!(verified(decide(&auth, "c1", Some("x"), Some(&jwt("lamp")))).name(), "lamp");
    // Without keys a token is a password like others.
    let decision = decide(&with_users(), "c1", None, Some(&jwt("lamp")));
    assert_eq!(refused(decision), Refusal::BadCredentials);
}

#[test]
fn refusals_are_said_in_the_words_of_mqtt() {
    let code = |refusal| ReasonCode::from(refusal) as u8;
    assert_eq!(code(Refusal::BadCredentials), 0x86);
    assert_eq!(code(Refusal::NotAuthorized), 0x87);
    assert_eq!(code(Refusal::ClientIdNotValid), 0x85);
    assert_eq!(code(Refusal::Busy), 0x89);
    assert_eq!(code(Refusal::Unavailable), 0x88);
}

#[test]
fn debug_shows_no_secret() {
    let credentials = Credentials {
        client_id: "c",
        user_name: Some("u"),
        password: Some(b"hunter2"),
        version: Version::V5,
    };
    let shown = format!("{credentials:?} {:?}", with_users());
    assert!(!shown.contains("hunter2") && !shown.contains("104"), "{shown}");
    assert!(!shown.contains("argon2id"), "{shown}");
}
