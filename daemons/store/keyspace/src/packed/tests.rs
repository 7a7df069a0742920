use proptest::prelude::*;

use super::*;

/// Bytes of every kind of head, and those that look like numbers.
fn content() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        3 => prop::collection::vec(any::<u8>(), 0..12),
        1 => prop::collection::vec(any::<u8>(), 60..70),
        1 => (8185usize..8200).prop_map(|length| vec![b'x'; length]),
        3 => (-300i64..300).prop_map(|n| n.to_string().into_bytes()),
        2 => (any::<i64>(), 0u32..64).prop_map(|(n, by)| (n >> by).to_string().into_bytes()),
        1 => "[-+0 ]{0,2}[0-9]{0,20}".prop_map(String::into_bytes),
    ]
}

fn words(contents: &[Vec<u8>]) -> Vec<Word<'_>> {
    contents.iter().map(|content| Word::from_bytes(content)).collect()
}

fn contents(packed: Packed<'_>) -> Vec<Vec<u8>> {
    packed.iter().map(|(_, word)| word.as_bytes(&mut [0; 20]).to_vec()).collect()
}

fn packed(contents: &[Vec<u8>]) -> PackedBuf {
    let mut buf = PackedBuf::new();
    buf.push_back(&words(contents));
    buf
}

/// Reads everything there is to read.
fn read_all(packed: Packed<'_>) {
    let forwards: Vec<_> = packed.iter().collect();
    let mut backwards: Vec<_> = packed.iter().rev().collect();
    backwards.reverse();
    assert_eq!(forwards, backwards);
    assert_eq!(packed.iter().len(), forwards.len());
    for (index, item) in forwards.iter().enumerate() {
        assert_eq!(packed.nth(index).as_ref(), Some(item));
        let found = packed.find(item.1).map(|(index, _)| index);
        assert_eq!(found, forwards.iter().position(|other| other.1 == item.1));
    }
    assert_eq!(packed.nth(forwards.len()), None);
}

#[derive(Clone, Debug)]
enum Edit {
    PushBack(Vec<Vec<u8>>),
    PushFront(Vec<Vec<u8>>),
    InsertAt(usize, Vec<Vec<u8>>),
    Replace(usize, Vec<u8>),
    Remove(usize, usize),
    RemoveFrom(usize, usize),
    SplitAndAppend(usize),
}

fn edit() -> impl Strategy<Value = Edit> {
    let some = || prop::collection::vec(content(), 0..4);
    prop_oneof![
        some().prop_map(Edit::PushBack),
        some().prop_map(Edit::PushFront),
        (any::<usize>(), some()).prop_map(|(at, some)| Edit::InsertAt(at, some)),
        (any::<usize>(), content()).prop_map(|(at, content)| Edit::Replace(at, content)),
        (any::<usize>(), 0usize..4).prop_map(|(at, count)| Edit::Remove(at, count)),
        (any::<usize>(), 0usize..4).prop_map(|(at, count)| Edit::RemoveFrom(at, count)),
        any::<usize>().prop_map(Edit::SplitAndAppend),
    ]
}

fn take(edit: Edit, buf: &mut PackedBuf, oracle: &mut Vec<Vec<u8>>) {
    let len = oracle.len();
    match edit {
        Edit::PushBack(some) => {
            buf.push_back(&words(&some));
            oracle.extend(some);
        }
        Edit::PushFront(some) => {
            buf.push_front(&words(&some));
            oracle.splice(0..0, some);
        }
        Edit::InsertAt(at, some) => {
            let at = at % (len + 1);
            buf.insert_at(at, &words(&some));
            oracle.splice(at..at, some);
        }
        Edit::Replace(at, content) if len > 0 => {
            let (range, _) = buf.packed().nth(at % len).expect("it is inside");
            buf.replace(range, Word::from_bytes(&content));
            oracle[at % len] = content;
        }
        Edit::Replace(..) => {}
        Edit::Remove(at, count) => {
            let at = at % (len + 1);
            let end = len.min(at + count);
            buf.remove(at..end);
            oracle.drain(at..end);
        }
        Edit::RemoveFrom(at, count) => {
            let at = at % (len + 1);
            let count = count.min(len - at);
            buf.remove_from(buf.packed().offset(at), count);
            oracle.drain(at..at + count);
        }
        Edit::SplitAndAppend(at) => {
            let behind = buf.split_off(at % (len + 1));
            assert_eq!(contents(behind.packed()), oracle[at % (len + 1)..]);
            assert_eq!(validate(behind.bytes()), Ok(()));
            buf.append(behind.packed());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_packed_sequence_is_a_vector(edits in prop::collection::vec(edit(), 0..60)) {
        let (mut buf, mut oracle) = (PackedBuf::new(), Vec::new());
        for edit in edits {
            take(edit, &mut buf, &mut oracle);
            assert_eq!(validate(buf.bytes()), Ok(()));
            assert_eq!(contents(buf.packed()), oracle);
        }
        read_all(buf.packed());
        // One content has one spelling, whatever led to it.
        assert_eq!(packed(&oracle).bytes(), buf.bytes());
    }

    #[test]
    fn a_word_is_its_bytes(content in content(), other in content()) {
        let word = Word::from_bytes(&content);
        assert_eq!(word.as_bytes(&mut [0; 20]), content);
        assert_eq!((word.len(), word.is_empty()), (content.len(), content.is_empty()));
        assert!(word.eq_bytes(&content));
        assert_eq!(word.eq_bytes(&other), content == other);
        assert_eq!(word == Word::from_bytes(&other), content == other);
        let number = std::str::from_utf8(&content).ok().and_then(|text| text.parse::<i64>().ok());
        let canonical = number.filter(|n| n.to_string().as_bytes() == content);
        assert_eq!(word, canonical.map_or(Word::Bytes(&content), Word::Int));
    }

    #[test]
    fn an_edit_can_be_applied_by_the_owner_of_the_bytes(
        before in prop::collection::vec(content(), 0..8),
        more in prop::collection::vec(content(), 0..4),
        at in any::<prop::sample::Index>(),
    ) {
        let mut buf = packed(&before);
        let at = at.index(before.len() + 1);
        let (mut owned, more) = (buf.bytes().to_vec(), words(&more));
        let splice = buf.packed().insert_at(at, &more);
        let mut hole = vec![0; splice.insert];
        splice.write(&mut hole);
        owned.splice(splice.at..splice.at + splice.remove, hole);
        owned[..2].copy_from_slice(&splice.count.to_le_bytes());
        assert_eq!(splice.bytes_after(buf.bytes().len()), owned.len());
        buf.insert_at(at, &more);
        assert_eq!(owned, buf.bytes());
    }

    #[test]
    fn arbitrary_bytes_are_refused_or_read(
        count in 0u16..6,
        bytes in prop::collection::vec(prop_oneof![any::<u8>(), 0u8..4, 0x80u8..0x84], 0..40),
    ) {
        let mut whole = count.to_le_bytes().to_vec();
        whole.extend(bytes);
        if validate(&whole).is_ok() {
            read_all(Packed::new(&whole));
            assert_eq!(packed(&contents(Packed::new(&whole))).bytes(), whole);
        }
    }

    #[test]
    fn a_byte_changed_is_refused_or_read(
        before in prop::collection::vec(content(), 1..6),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = packed(&before).bytes().to_vec();
        let cut = cut.index(bytes.len());
        assert!(validate(&bytes[..cut]).is_err());
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if validate(&bytes).is_ok() {
            read_all(Packed::new(&bytes));
            assert_eq!(packed(&contents(Packed::new(&bytes))).bytes(), bytes);
        }
    }
}

#[test]
fn every_form_has_the_size_that_its_picture_says() {
    for (content, bytes) in [
        (&b""[..], 2),
        (b"0", 2),
        (b"127", 2),
        (b"128", 4),
        (b"-1", 3),
        (b"-128", 3),
        (b"-129", 4),
        (b"32767", 4),
        (b"32768", 5),
        (b"9223372036854775807", 10),
        (b"-9223372036854775808", 10),
        (b"9223372036854775808", 21),
        (b"-0", 4),
        (b"007", 5),
        (&[b'x'; 63], 65),
        (&[b'x'; 64], 67),
        (&[b'x'; 126], 130),
        (&[b'x'; 8191], 8195),
        (&[b'x'; 8192], 8199),
    ] {
        let buf = packed(&[content.to_vec()]);
        let text = String::from_utf8_lossy(content);
        assert_eq!(buf.bytes().len() - HEADER_BYTES, bytes, "{text}");
        assert_eq!(contents(buf.packed()), [content]);
        read_all(buf.packed());
    }
}

#[test]
fn long_items_are_read_from_behind() {
    for length in [16_377, 16_378, 16_379, 16_380, 2_097_146, 2_097_147, 268_435_451] {
        let long = vec![b'y'; length];
        let mut buf = PackedBuf::new();
        buf.push_back(&[Word::Int(1), Word::Bytes(&long), Word::Int(2)]);
        assert_eq!(validate(buf.bytes()), Ok(()));
        let mut back = buf.packed().iter().rev();
        assert_eq!(back.next().map(|(_, word)| word), Some(Word::Int(2)));
        assert_eq!(back.next().map(|(_, word)| word.len()), Some(length));
        assert_eq!(back.next().map(|(_, word)| word), Some(Word::Int(1)));
    }
}

#[test]
fn a_field_is_not_found_among_the_values() {
    let mut buf = PackedBuf::new();
    buf.push_back(&[Word::Bytes(b"a"), Word::Bytes(b"b"), Word::Bytes(b"b"), Word::Bytes(b"12")]);
    let packed = buf.packed();
    assert_eq!(packed.find_every(Word::Bytes(b"b"), 2).map(|found| found.0), Some(2));
    assert_eq!(packed.find(Word::Bytes(b"b")).map(|found| found.0), Some(1));
    assert_eq!(packed.find_every(Word::Int(12), 2), None);
    assert_eq!(packed.find(Word::Int(12)), packed.find(Word::Bytes(b"12")));
    assert_eq!(packed.find(Word::Int(12)).map(|found| found.0), Some(3));
}

#[test]
fn other_spellings_are_refused() {
    for item in [
        &[0x82, b'1', b'2', 3][..],               // a number as bytes
        &[0xF1, 5, 2],                            // 5 has a shorter form
        &[0xF2, 0xFF, 0xFF, 3],                   // and -1 too
        &[0xC0, 1, b'x', 3],                      // a long head for one byte
        &[0xE0, 1, 0, 0, 0, b'x', 6],             // and a longer one
        &[0xF0, 1],                               // an integer of no bytes
        &[0xF9, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10],   // and of too many
        &[0xE1, 1],                               // no head
        &[0x81, b'x', 3],                         // the length behind is wrong
        &[0x81, b'x', 0x00, 0x82],                // and longer than it need be
        &[0xE0, 0xFF, 0xFF, 0xFF, 0xFF, b'x', 0], // more data than there is
        &[0xE0, 0xFF],
        &[],
    ] {
        let whole = [&[1, 0], item].concat();
        assert_eq!(validate(&whole), Err(PackedError::Item { offset: 2 }), "{item:X?}");
    }
    assert_eq!(validate(&[0]), Err(PackedError::Size { bytes: 1 }));
    assert_eq!(validate(&[0, 0, 1]), Err(PackedError::Trailing { offset: 2 }));
    assert_eq!(validate(&EMPTY), Ok(()));
}

#[test]
#[should_panic(expected = "a count of 16 bits")]
fn the_count_has_an_end() {
    let mut buf = PackedBuf::new();
    buf.push_back(&vec![Word::Int(1); ITEMS_MAX]);
    assert_eq!(validate(buf.bytes()), Ok(()));
    buf.push_back(&[Word::Int(1)]);
}

#[test]
#[ignore = "a measurement"]
fn measure_a_small_hash() {
    let pairs: Vec<Vec<u8>> = (0..128)
        .flat_map(|n| [format!("field:{n}").into_bytes(), format!("value {n}").into_bytes()])
        .collect();
    let buf = packed(&pairs);
    let start = std::time::Instant::now();
    let rounds = 20_000;
    let found: usize = (0..rounds)
        .filter(|n| {
            let field = Word::from_bytes(&pairs[n * 2 % 256]);
            std::hint::black_box(buf.packed()).find_every(field, 2).is_some()
        })
        .count();
    let find = start.elapsed().as_nanos() / rounds as u128;
    assert_eq!(found, rounds);
    let held: usize = pairs.iter().map(Vec::len).sum();
    println!("a field of 128 found in {find} ns; {} bytes for {held}", buf.bytes().len());
}
