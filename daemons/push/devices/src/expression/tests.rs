use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> Expression {
    Expression::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn error(text: &str) -> String {
    Expression::parse(text).expect_err(text).to_string()
}

#[test]
fn expressions_print_as_they_are_meant() {
    let cases = [
        ("city:sz and not vip", "city:sz and not vip"),
        ("(beta or staff) AND app_version >= 3.2.1", "(beta or staff) and app_version >= 3.2.1"),
        ("((a)) or (b or c) and (d and e)", "a or (b or c) and d and e"),
        ("not Not (a or b)", "a or b"),
        ("not (not a or b)", "not (not a or b)"),
        ("lang:ZH*", "language:ZH*"),
        ("tag:vip or tag:*", "vip or *"),
        (r#""big spender" or "vip" or "New Y"*"#, r#""big spender" or vip or "New Y"*"#),
        (
            r#"city:"New York" or "my key":"say \"\\\"""#,
            r#"city:"New York" or "my key":"say \"\\\"""#,
        ),
        (r#"age:18 or age:"18" or age>=1.50"#, r#"age:18 or age:"18" or age >= 1.5"#),
        ("age!=-3e20", "age != -3e20"),
        (r#""and" or "or":"not""#, r#""and" or "or":"not""#),
        (
            "timezone:Asia/Shanghai and alias:zoe@example.com",
            "timezone:Asia/Shanghai and alias:zoe@example.com",
        ),
        ("registered<2026-01-05 and test:true", "registered < 2026-01-05 and test:true"),
        ("城市:深圳 and 😀", "城市:深圳 and 😀"),
        (r#"x:"a*" or x:"a"*"#, r#"x:"a*" or x:a*"#),
    ];
    for (text, printed) in cases {
        let expression = parse(text);
        assert_eq!(expression.to_string(), printed);
        assert_eq!(parse(printed), expression);
    }
}

#[test]
fn errors_say_where_and_what_was_expected() {
    let cases = [
        ("", "at byte 0: expected a tag, a key, `not` or `(`, found the end"),
        ("a and", "at byte 5: expected a tag, a key, `not` or `(`, found the end"),
        ("a b", "at byte 2: expected `and`, `or` or the end, found `b`"),
        ("(a or b", "at byte 7: expected `and`, `or` or `)`, found the end"),
        ("a)", "at byte 1: expected `and`, `or` or the end, found `)`"),
        ("city:", "at byte 5: expected a value, found the end"),
        ("city:and", "at byte 5: expected a value, found `and`"),
        ("a && b", "at byte 2: expected `and`, found `&`"),
        ("!a", "at byte 0: expected `not`, or `!=`, found `!`"),
        ("é or \"x", "at byte 8: expected the `\"` that ends the text, found the end"),
        (r#""a\n""#, r#"at byte 2: expected `\"` or `\\`, found `\`"#),
        ("age >= old", "at byte 7: expected a number; a text is matched with `:`, found `old`"),
        ("age > ", "at byte 6: expected a number; a text is matched with `:`, found the end"),
        (
            "age > \"18\"",
            "at byte 6: expected a number; a text is matched with `:`, found `\"18\"`",
        ),
        ("app_version > new", "at byte 14: expected a version, as 3.2.1, found `new`"),
        (
            "platform > ios",
            "at byte 0: expected a key that is compared, or `:` behind it, found `platform`",
        ),
        ("test:yes", "at byte 5: expected `true` or `false`, found `yes`"),
        ("alias:z*", "at byte 6: expected an alias without `*`, found `z`"),
        ("a*:b", "at byte 0: expected a key, found `a`"),
        ("\"\"", "at byte 0: expected a tag that is not empty, found `\"\"`"),
        (
            "a, b",
            "at byte 1: expected a name or a value, in quotes if it has this character, found `,`",
        ),
    ];
    for (text, message) in cases {
        assert_eq!(error(text), message, "{text}");
    }
    for text in ["2026-02-30", "2026-1-5", "20260105", "yesterday", "\"2026-01-05T12:00\""] {
        let found = error(&format!("registered >= {text}"));
        assert!(
            found.starts_with("at byte 14: expected a day, as 2026-01-05, or a time"),
            "{found}"
        );
    }
    assert!(error("registered:2026-01-05").contains("expected a comparison"));
}

#[test]
fn days_and_times_are_seconds() {
    let seconds = |text: &str| match parse(text).0 {
        Node::Leaf(Leaf::Registered(_, time)) => (time.value.from, time.value.until),
        other => panic!("{other}"),
    };
    assert_eq!(seconds("registered = 2026-01-05"), (1_767_571_200, 1_767_657_600));
    let noon = (1_767_614_400, 1_767_614_401);
    assert_eq!(seconds("registered = \"2026-01-05T12:00:00Z\""), noon);
    assert_eq!(seconds("registered = \"2026-01-05T20:00:00.7+08:00\""), noon);
}

#[test]
fn limits_are_errors_and_not_crashes() {
    let deep = |open: &str, levels: usize, close: &str| {
        format!("{}a{}", open.repeat(levels), close.repeat(levels))
    };
    for (open, close) in [("(", ")"), ("not ", ""), ("not(", ")")] {
        let per_level = if open == "not(" { 2 } else { 1 };
        parse(&deep(open, DEPTH_MAX / per_level, close));
        let message = error(&deep(open, DEPTH_MAX / per_level + 1, close));
        assert!(message.contains("at most 32 levels"), "{message}");
        error(&deep(open, 800, close));
        error(&open.repeat(900));
    }
    let many = |leaves| vec!["a"; leaves].join(" or ");
    parse(&many(LEAVES_MAX));
    assert!(error(&many(LEAVES_MAX + 1)).contains("at most 256 conditions"));
    parse(&"a".repeat(EXPRESSION_BYTES_MAX));
    assert!(error(&"a".repeat(EXPRESSION_BYTES_MAX + 1)).contains("at most 4096 bytes"));
}

fn text() -> impl Strategy<Value = Box<str>> {
    let texts = prop_oneof![
        "[a-c]{1,3}",
        "[ -~]{1,6}",
        "\\PC{1,4}",
        Just("and".to_owned()),
        Just("18".to_owned()),
        Just("-1.5e3".to_owned()),
        Just("lang".to_owned()),
    ];
    texts.prop_map(Box::from)
}

fn pattern() -> impl Strategy<Value = Pattern> {
    (text(), any::<bool>()).prop_map(|(text, is_prefix)| Pattern { text, is_prefix, number: None })
}

fn key() -> impl Strategy<Value = Box<str>> {
    let is_free = |key: &_| !crate::BUILT_IN_KEYS.iter().any(|other| Box::from(*other) == *key);
    text().prop_filter("built in", is_free)
}

fn compare() -> impl Strategy<Value = Compare> {
    prop_oneof![
        Just(Compare::Equal),
        Just(Compare::NotEqual),
        Just(Compare::Less),
        Just(Compare::LessOrEqual),
        Just(Compare::Greater),
        Just(Compare::GreaterOrEqual),
    ]
}

fn leaf() -> impl Strategy<Value = Leaf> {
    let text_key = prop_oneof![
        Just(TextKey::Platform),
        Just(TextKey::AppVersion),
        Just(TextKey::Language),
        Just(TextKey::TimeZone),
    ];
    let attribute = (key(), pattern(), any::<bool>()).prop_map(|(key, mut pattern, unquoted)| {
        pattern.number = number(&pattern.text).filter(|_| unquoted && !pattern.is_prefix);
        Leaf::Attribute(key, pattern)
    });
    let comparison = (key(), compare(), any::<f64>())
        .prop_filter_map("finite", |(key, compare, value)| {
            Some(Leaf::Number(key, compare, Number::new(value)?))
        });
    let version = (compare(), "[0-9]{1,3}(\\.[0-9]{1,3}){0,3}(-beta|\\+7| 8)?");
    let version = version.prop_map(|(compare, text)| {
        let value = Version::parse(&text).expect("it has this form");
        Leaf::Version(compare, Literal { text: text.into(), value })
    });
    let registered = (compare(), 1u8..=28).prop_map(|(compare, day)| {
        match parse(&format!("registered {} 2026-02-{day:02}", compare.name())).0 {
            Node::Leaf(leaf) => leaf,
            other => panic!("{other}"),
        }
    });
    prop_oneof![
        4 => pattern().prop_map(Leaf::Tag),
        2 => (text_key, pattern()).prop_map(|(key, pattern)| Leaf::Text(key, pattern)),
        4 => attribute,
        1 => text().prop_map(Leaf::Alias),
        1 => any::<bool>().prop_map(Leaf::Test),
        2 => comparison,
        1 => version,
        1 => registered,
    ]
}

fn node() -> impl Strategy<Value = Node> {
    leaf().prop_map(Node::Leaf).prop_recursive(4, 24, 4, |inner| {
        let some = || prop::collection::vec(inner.clone(), 1..4);
        prop_oneof![
            some().prop_map(Node::all),
            some().prop_map(Node::any),
            inner.clone().prop_map(Node::negate),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2000, ..Default::default() })]

    #[test]
    fn what_is_printed_reads_as_the_same(node in node()) {
        let expression = Expression(node);
        let printed = expression.to_string();
        prop_assert_eq!(Expression::parse(&printed), Ok(expression), "{}", printed);
    }

    #[test]
    fn no_text_is_read_that_does_not_print(text in "\\PC{0,40}") {
        if let Ok(expression) = Expression::parse(&text) {
            prop_assert_eq!(Expression::parse(&expression.to_string()), Ok(expression));
        }
    }

    #[test]
    fn no_soup_of_tokens_is_read_that_does_not_print(
        tokens in prop::collection::vec(prop::sample::select(vec![
            "a", "b*", "*", "and", "or", "not", "(", ")", ":", "=", "!=", "<=", ">", "\"x y\"", "\"",
            "18", "app_version", "3.2", "registered", "2026-01-05", "test", "true", "lang", "zh",
            "alias", " ", "\\", "é", "&", "tag", "platform", "\"\"",
        ]), 0..400),
    ) {
        for between in ["", " "] {
            let text = tokens.join(between);
            match Expression::parse(&text) {
                Ok(expression) => {
                    let printed = expression.to_string();
                    prop_assert_eq!(Expression::parse(&printed), Ok(expression), "{}", printed);
                }
                Err(error) => prop_assert!(error.at <= text.len()),
            }
        }
    }
}
