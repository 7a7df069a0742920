use proptest::prelude::*;

use super::*;

/// A line, without what it borrows.
type Told = (u64, String, Option<String>);

fn told(line: Line<'_>) -> Told {
    let name = match line.listed.name {
        Name::Device(id) => format!("device {id}"),
        Name::Alias(alias) => format!("alias {alias}"),
    };
    (line.listed.line, name, line.vars.map(str::to_owned))
}

fn read<'a>(
    format: ListFormat,
    chunks: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<Told>, Result<(), ListError>) {
    let mut lines = Vec::new();
    let mut each = |line: Line<'_>| lines.push(told(line));
    let mut reader = ListReader::new(format);
    let fed = chunks.into_iter().try_for_each(|chunk| reader.feed(chunk, &mut each));
    let finished = reader.finish(&mut each);
    assert!(fed.is_ok() || fed == finished, "an error stays: {fed:?}, {finished:?}");
    (lines, finished)
}

fn all(format: ListFormat, text: &[u8]) -> (Vec<Told>, Result<(), ListError>) {
    read(format, [text])
}

fn problem(format: ListFormat, text: &[u8]) -> (u64, String) {
    let error = all(format, text).1.expect_err("it is wrong");
    (error.line, error.problem.to_string())
}

fn line_of(line: u64, name: &str, vars: Option<&str>) -> Told {
    (line, name.to_owned(), vars.map(str::to_owned))
}

const NDJSON: &str = "\u{feff}\"d1\"\r\n\n  {\"device\":\"d\\u00e92\", \"vars\": {\"n\" : [1,{}]}}  \r\n\
    {\"alias\":\"zoé\",\"vars\":null}\n \t\r\n{\"vars\":{},\"device\":\"d3\"}";

const CSV: &str = "\u{feff}\r\nname, device ,\"say \"\"hi\"\"\"\r\n\n\"Zoe, \r\n \"\"Z\"\"\",d1,é\r\n\
    ,d2,\"\"\n\n\"\",\"d3\",\\";

#[test]
fn ndjson_has_a_device_or_an_alias_a_line() {
    let (lines, end) = all(ListFormat::Ndjson, NDJSON.as_bytes());
    assert_eq!(end, Ok(()));
    assert_eq!(
        lines,
        [
            line_of(1, "device d1", None),
            line_of(3, "device dé2", Some("{\"n\" : [1,{}]}")),
            line_of(4, "alias zoé", None),
            line_of(6, "device d3", Some("{}")),
        ]
    );
}

#[test]
fn csv_has_a_column_that_names_and_others_that_are_variables() {
    let (lines, end) = all(ListFormat::Csv, CSV.as_bytes());
    assert_eq!(end, Ok(()));
    let vars = |name, hi| Some(format!("{{\"name\":{name},\"say \\\"hi\\\"\":{hi}}}"));
    assert_eq!(
        lines,
        [
            (4, "device d1".into(), vars(r#""Zoe, \r\n \"Z\"""#, "\"é\"")),
            (6, "device d2".into(), vars("\"\"", "\"\"")),
            (8, "device d3".into(), vars("\"\"", r#""\\""#)),
        ]
    );
    let (lines, end) = all(ListFormat::Csv, b"alias\nzoe\nbob");
    assert_eq!(end, Ok(()));
    assert_eq!(lines, [line_of(2, "alias zoe", None), line_of(3, "alias bob", None)]);
    assert_eq!(all(ListFormat::Csv, b"device").1, Ok(()));
}

#[test]
fn an_empty_list_of_json_is_one_and_csv_needs_a_header() {
    assert_eq!(all(ListFormat::Ndjson, b""), (Vec::new(), Ok(())));
    assert_eq!(all(ListFormat::Ndjson, MARK), (Vec::new(), Ok(())));
    assert_eq!(problem(ListFormat::Csv, b"").0, 1);
    assert_eq!(problem(ListFormat::Csv, b"\r\n\n").0, 1);
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    use ListFormat::{Csv, Ndjson};
    let cases: [(ListFormat, &[u8], u64, &str); 22] = [
        (Ndjson, b"\"a\"\n[]", 2, "neither a text nor"),
        (Ndjson, b"\n\n{}", 3, "neither a text nor"),
        (Ndjson, b"{\"device\":\"a\",\"alias\":\"b\"}", 1, "neither a text nor"),
        (Ndjson, b"{\"device\":\"a\",\"vars\":[]}", 1, "`vars` is no object"),
        (Ndjson, b"{\"device\":\"a\",\"vars\":{]}", 1, "column 23: key must"),
        (Ndjson, b"{\"device\":\"a\",\"name\":1}", 1, "column 20: unknown field `name`"),
        (Ndjson, b"{\"device\":7}", 1, "column 11: invalid type"),
        (Ndjson, b"{\"device\":\"a\",\"device\":\"a\"}", 1, "duplicate field"),
        (Ndjson, b"\"a\" \"b\"", 1, "column 5: trailing characters"),
        (Ndjson, b"\"a\"\n\"\xFF\"\n", 2, "not UTF-8"),
        (Ndjson, b"\xEF\xBB\"a\"", 1, "not UTF-8"),
        (Csv, b"name\nz", 1, "the header has not one column"),
        (Csv, b"\ndevice,alias\na,b", 2, "the header has not one column"),
        (Csv, b"device,n,n\na,b,c", 1, "the column \"n\" twice"),
        (Csv, b"device,\na,b", 1, "the column \"\" twice, or without a name"),
        (Csv, b"device,n\n\"a\n\",b\nc", 4, "1 fields, and the header 2"),
        (Csv, b"device,n\na,\"b\n", 2, "a quote does not end"),
        (Csv, b"device,n\na,\"b\"\"", 2, "a quote does not end"),
        (Csv, b"\"device", 1, "a quote does not end"),
        (Csv, b"device,n\na,b,c", 2, "3 fields, and the header 2"),
        (Csv, b"device,n\na,\xFF", 2, "not UTF-8"),
        // Two fields that are UTF-8 only together.
        (Csv, b"device,n\na\xC3,\xA9", 2, "not UTF-8"),
    ];
    for (format, text, line, what) in cases {
        let (at, message) = problem(format, text);
        assert_eq!(at, line, "{message}");
        assert!(message.contains(what), "{message}");
    }
    let many = vec!["n"; COLUMNS_MAX + 1].join(",");
    assert_eq!(problem(Csv, many.as_bytes()).1, ListProblem::Columns.to_string());
    let row = format!("device\n{many}");
    assert_eq!(problem(Csv, row.as_bytes()).0, 2);
}

#[test]
fn a_line_has_at_most_64_kib() {
    let sizes = [(LINE_BYTES_MAX, true), (LINE_BYTES_MAX + 1, false), (10 * LINE_BYTES_MAX, false)];
    for (len, fits) in sizes {
        let json = format!("\"a\"\n\"{}\"\n\"b\"", "x".repeat(len - 2));
        let csv = format!("device\n{}\nb\n", "x".repeat(len));
        let quoted = format!("device\n\"{}\"\nb", "\n".repeat(len - 2));
        let open = format!("device\n\"{}", "x,\n".repeat(len / 3 + 1));
        let all = [
            (ListFormat::Ndjson, json, fits),
            (ListFormat::Csv, csv, fits),
            (ListFormat::Csv, quoted, fits),
            (ListFormat::Csv, open, false),
        ];
        for (format, text, fits) in all {
            for size in [1, 1000, usize::MAX] {
                let (_, end) = read(format, text.as_bytes().chunks(size.min(text.len())));
                match fits {
                    true => assert_eq!(end, Ok(())),
                    false => assert_eq!(end, Err(wrong(2, ListProblem::TooLong))),
                }
            }
        }
    }
}

#[test]
fn pieces_of_any_size_say_the_same() {
    for (format, text) in [(ListFormat::Ndjson, NDJSON), (ListFormat::Csv, CSV)] {
        let text = text.as_bytes();
        let whole = all(format, text);
        for size in 1..text.len() {
            assert_eq!(read(format, text.chunks(size)), whole, "pieces of {size}");
        }
        for cut in 0..=text.len() {
            let (a, b) = text.split_at(cut);
            assert_eq!(read(format, [a, &[], b]), whole, "cut at {cut}");
        }
    }
}

fn soup() -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop::sample::select(vec![
        &b"device"[..],
        b"alias",
        b",",
        b"\"",
        b"\n",
        b"\r\n",
        b"\r",
        b"\"\"",
        b"{",
        b"}",
        b":",
        b"\"device\":",
        b"\"d1\"",
        b"\"vars\":{}",
        b" ",
        b"\xEF\xBB\xBF",
        b"\xEF",
        b"\xC3\xA9",
        b"\xFF",
        b"\\",
        b"x",
        b"device,name\n",
        b"{\"device\":\"d\"}\n",
        b"a,b\n",
    ]);
    prop::collection::vec(pieces, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2000, ..Default::default() })]

    #[test]
    fn any_bytes_say_the_same_in_any_pieces(
        bytes in soup(),
        sizes in prop::collection::vec(0usize..9, 1..20),
        csv: bool,
    ) {
        let format = if csv { ListFormat::Csv } else { ListFormat::Ndjson };
        let mut pieces = Vec::new();
        let mut rest = &*bytes;
        for size in sizes {
            let (piece, behind) = rest.split_at(size.min(rest.len()));
            pieces.push(piece);
            rest = behind;
        }
        pieces.push(rest);
        prop_assert_eq!(read(format, pieces), all(format, &bytes));
    }
}
