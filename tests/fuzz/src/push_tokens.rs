//! Any bytes as a token and a device: nothing that was not issued lets anybody in, and what was
//! issued is not refused.

use sextant_push::auth::token::{TokenError, TokenKey};

pub(crate) fn run(bytes: &[u8]) {
    let key = TokenKey::from_bytes([7; 32]);
    let (len, rest) = bytes.split_first().unwrap_or((&0, &[]));
    let (device, token) = rest.split_at(usize::from(*len).min(rest.len()));
    let Ok(device) = std::str::from_utf8(device) else { return };
    let verdict = key.verify(token, device, 1000, None);
    assert!(
        matches!(verdict, Err(TokenError::Malformed | TokenError::Forged)),
        "{device:?} came in with a token of its own making: {verdict:?}"
    );
    let Ok(issued) = key.issue(device, 1001) else { return };
    assert_eq!(key.verify(issued.as_bytes(), device, 1000, None), Ok(()));
    assert_eq!(key.verify(issued.as_bytes(), device, 1001, None), Err(TokenError::Expired));
    // One byte of another is none.
    if let Some((&at, with)) =
        token.split_first().zip(token.get(1)).map(|((at, _), with)| (at, with))
    {
        let mut forged = issued.clone().into_bytes();
        let at = usize::from(at) % forged.len();
        if forged[at] != *with {
            forged[at] = *with;
            assert!(key.verify(&forged, device, 1000, None).is_err(), "byte {at} does not count");
        }
    }
}
