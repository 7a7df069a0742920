//! Any bytes as a request, and as frames: neither panics, and frames mean the same however they
//! are cut.

use sextant_websocket::{Policy, Receiver, upgrade};

pub(crate) fn run(bytes: &[u8]) {
    let origins = ["https://app.example".to_owned()];
    for origins in [&origins[..], &[]] {
        let _ = upgrade(bytes, &Policy { path: "/mqtt", protocol: "mqtt", origins });
    }
    let (mut payload, mut pongs) = (Vec::new(), Vec::new());
    let outcome = Receiver::default().handle_input(bytes, &mut payload, &mut pongs);
    assert!(payload.len() + pongs.len() <= bytes.len(), "nothing comes from nothing");
    let (mut one_payload, mut one_pongs) = (Vec::new(), Vec::new());
    let mut receiver = Receiver::default();
    let mut by_one = Ok(None);
    for byte in bytes {
        by_one = receiver.handle_input(&[*byte], &mut one_payload, &mut one_pongs);
        if by_one != Ok(None) {
            break;
        }
    }
    assert_eq!((by_one, one_payload, one_pongs), (outcome, payload, pongs));
}
