//! Any bytes as a token, or as header and claims of one with a right signature: a token that was
//! not signed lets nobody in, and what was signed no more than it says.

use std::cell::OnceCell;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use sextant_push::auth::jwt::Verifier;
use sextant_push::config::Jwt;
use sextant_service::config::Secret;
use sha2::Sha256;

const SECRET: &str = "thirty-two bytes are what it takes";
const NOW: u64 = 1_800_000_000_000;

thread_local! {
    static VERIFIERS: OnceCell<[Verifier; 2]> = const { OnceCell::new() };
}

fn verifiers() -> [Verifier; 2] {
    let strict = Jwt { secret: Secret::new(SECRET), ..Jwt::default() };
    let named = Jwt {
        audience: vec!["us".to_owned()],
        issuer: vec!["them".to_owned()],
        expiry_required: false,
        ..strict.clone()
    };
    [strict, named].map(|jwt| Verifier::load(&jwt).expect("a secret that is long enough"))
}

fn signed(header: &[u8], claims: &[u8]) -> Vec<u8> {
    let mut token =
        format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes());
    let mut mac = mac.expect("a key of any length");
    mac.update(token.as_bytes());
    token.push('.');
    token.push_str(&URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()));
    token.into_bytes()
}

pub(crate) fn run(bytes: &[u8]) {
    VERIFIERS.with(|verifiers| run_with(verifiers.get_or_init(self::verifiers), bytes));
}

fn run_with(verifiers: &[Verifier; 2], bytes: &[u8]) {
    let Some((&kind, rest)) = bytes.split_first() else { return };
    let (token, claims) = match kind % 4 {
        0 => (rest.to_vec(), None),
        1 => {
            let Some((&len, rest)) = rest.split_first() else { return };
            let (header, claims) = rest.split_at(usize::from(len).min(rest.len()));
            (signed(header, claims), Some(claims))
        }
        _ => (signed(br#"{"alg":"HS256"}"#, rest), Some(rest)),
    };
    for verifier in verifiers {
        let Ok(principal) = verifier.verify(&token, "lamp", NOW) else { continue };
        let claims = claims.expect("nobody signs a token by chance");
        // What nobody asks for may be no text.
        let Ok(claims) = serde_json::from_slice::<serde_json::Value>(claims) else { continue };
        assert_eq!(claims["sub"].as_str(), Some(principal.name()));
        assert!(principal.expires_at().is_none_or(|end| end > NOW));
        assert!(claims.get("client_id").is_none_or(|id| id.is_null() || id == "lamp"));
    }
}
