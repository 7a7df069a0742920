use proptest::prelude::*;
use serde_json::Value;

use super::*;

const LIMITS: TemplateLimits =
    TemplateLimits { source_bytes_max: 4096, parts_max: 16, output_bytes_max: 4096 };

fn render(source: &str, object: &str) -> Result<String, String> {
    let mut names = Names::new();
    let template =
        Template::text(source, &mut names, &LIMITS).map_err(|error| error.to_string())?;
    let values = Values::of_json(&names, object).map_err(|error| error.to_string())?;
    let mut out = String::new();
    let rendered = template.render(&names, &values, Missing::Error, &mut out);
    rendered.map(|()| out).map_err(|error| error.to_string())
}

fn payload(source: &str, object: &str) -> Result<String, String> {
    let mut names = Names::new();
    let template =
        Template::json(source, &mut names, &LIMITS).map_err(|error| error.to_string())?;
    let values = Values::of_json(&names, object).map_err(|error| error.to_string())?;
    let mut out = String::new();
    let rendered = template.render(&names, &values, Missing::Empty, &mut out);
    rendered.map(|()| out).map_err(|error| error.to_string())
}

#[test]
fn variables_become_what_the_target_has() {
    let ada = r#"{"name":"Ada","count":3,"new":true,"price":1.10,"none":null,"city":"K\u00f6ln"}"#;
    for (source, expected) in [
        ("Hello {{name}}, {{count}} new", "Hello Ada, 3 new"),
        ("{{ name }}{{name}}", "AdaAda"),
        ("{{price}} {{new}}", "1.10 true"),
        ("{{city}}: {{city|upper}} {{ city | lower | upper }}", "Köln: KÖLN KÖLN"),
        ("{{none | default: \"no\\\"body\\\\\"}}", "no\"body\\"),
        ("{{nick|default:\"friend\"|upper}}", "FRIEND"),
        ("{{name|default:\"friend\"}}", "Ada"),
        ("{{city|truncate:3}} {{city|truncate:4}} {{city|truncate:1}}", "Kö… Köln …"),
        ("{{\"{{\"}}name}} { } }}", "{{name}} { } }}"),
        ("", ""),
        ("no variables", "no variables"),
    ] {
        assert_eq!(render(source, ada).as_deref(), Ok(expected), "{source}");
    }
}

#[test]
fn what_is_no_template_is_refused_with_the_place() {
    for (source, place) in [
        ("Hi {{", "at byte 5: expected the name"),
        ("Hi {{name", "at byte 9: expected \"|\""),
        ("Hi {{name}", "at byte 9: expected \"|\""),
        ("{{1st}}", "at byte 2: expected the name"),
        ("{{}}", "at byte 2: expected the name"),
        ("{{a b}}", "at byte 4: expected \"|\""),
        ("{{a|shout}}", "at byte 4: expected a filter"),
        ("{{a|default}}", "at byte 11: expected \":\""),
        ("{{a|default:b}}", "at byte 12: expected a text in quotes"),
        ("{{a|default:\"b}}", "at byte 16: expected quotes"),
        ("{{a|default:\"\\n\"}}", "at byte 14: expected \\\""),
        ("{{a|truncate:0}}", "at byte 13: expected a number"),
        ("{{a|truncate:99999999999999999999}}", "at byte 13: expected a number"),
        ("{{\"a\" | upper}}", "at byte 6: expected \"}}\""),
        ("{{include \"x\"}}", "at byte 10: expected \"|\""),
    ] {
        let error = render(source, "{}").expect_err(source);
        assert!(error.starts_with(place), "{source}: {error}");
    }
    let many = "{{a}}".repeat(17);
    assert_eq!(
        render(&many, "{}").expect_err("17 of 16"),
        "the template has more than 16 variables"
    );
    let long = "x".repeat(4097);
    assert!(render(&long, "{}").expect_err("too long").contains("4097 bytes"));
    let filters = format!("{{{{a{}}}}}", "|upper".repeat(9));
    assert!(render(&filters, "{}").expect_err("nine").contains("8 filters"));
    let names: String = (0..65).map(|at| format!("{{{{v{at}}}}}")).collect();
    let limits = TemplateLimits { parts_max: 1000, ..LIMITS };
    assert!(Template::text(&names, &mut Names::new(), &limits).is_err());
}

#[test]
fn a_missing_variable_leaves_the_target_out_or_nothing_in_its_place() {
    let error = render("Hello {{name}}", r#"{"nam":"Ada"}"#).expect_err("no name");
    assert!(error.contains("\"name\""), "{error}");
    assert_eq!(payload(r#"{"t":"Hello {{name}}!"}"#, "{}").as_deref(), Ok(r#"{"t":"Hello !"}"#));
    // What failed leaves nothing behind.
    let mut names = Names::new();
    let template = Template::text("a {{b}}", &mut names, &LIMITS).expect("a template");
    let mut out = "before".to_owned();
    let rendered = template.render(&names, &Values::none(), Missing::Error, &mut out);
    assert_eq!(rendered, Err(RenderError::Missing { name: "b".into() }));
    assert_eq!(out, "before");
}

#[test]
fn a_result_has_a_bound() {
    let object = format!(r#"{{"a":"{}"}}"#, "x".repeat(3000));
    assert_eq!(render("{{a}}", &object).map(|text| text.len()), Ok(3000));
    let error = render("{{a}}{{a}}", &object).expect_err("6000 of 4096");
    assert!(error.contains("4096"), "{error}");
    // An escape is as long as it is.
    let quotes = format!(r#"{{"a":"{}"}}"#, "\\\"".repeat(2047));
    assert_eq!(payload(r#""{{a}}""#, &quotes).map(|text| text.len()), Ok(4096));
    let quotes = format!(r#"{{"a":"{}"}}"#, "\\\"".repeat(2048));
    assert!(payload(r#""{{a}}""#, &quotes).is_err());
}

#[test]
fn targets_bring_an_object_of_plain_values() {
    for (object, fits) in [
        ("{}", true),
        (r#" {"a":"b"} "#, true),
        (r#"{"other":[1,{"a":[]}],"a":1}"#, true),
        (r#"{"a":[1]}"#, false),
        (r#"{"a":{}}"#, false),
        (r#"{"a":"b"} x"#, false),
        ("[]", false),
        ("\"a\"", false),
        ("", false),
        (r#"{"a":"\ud800"}"#, false),
    ] {
        assert_eq!(render("{{a|default:\"\"}}", object).is_ok(), fits, "{object}");
    }
    assert_eq!(render("{{a}}", r#"{"a":1,"\u0061":2}"#).as_deref(), Ok("2"), "the last counts");
}

#[test]
fn columns_of_a_table_are_values_too() {
    let mut names = Names::new();
    let template = Template::text("{{b}}-{{a}}", &mut names, &LIMITS).expect("a template");
    let mut values = Values::none();
    for (column, value) in [("a", "1"), ("c", "2"), ("b", "3")] {
        values.set(&names, column, value);
    }
    let mut out = String::new();
    template.render(&names, &values, Missing::Error, &mut out).expect("both are there");
    assert_eq!((out.as_str(), names.iter().collect::<Vec<_>>()), ("3-1", vec!["b", "a"]));
    assert!(!template.is_constant());
}

#[test]
fn a_payload_stays_as_it_was_written_around_its_variables() {
    let source = r#" { "k{ey" : "a\u0041{\"}", "n": [1.0, "{{a}} {{b|default:\"x\\\"y\"}}"] } "#;
    let expected = r#" { "k{ey" : "a\u0041{\"}", "n": [1.0, "q\"\\\n\u0001 x\"y"] } "#;
    assert_eq!(payload(source, r#"{"a":"q\"\\\n\u0001"}"#).as_deref(), Ok(expected));
    for (source, what) in [
        (r#"{"{{a}}":1}"#, "at byte 1: variables stand in values"),
        (r#"{"\u007b{a}}" : 1}"#, "at byte 1: variables stand in values"),
        (r#"{"a":"{{}}"}"#, "at byte 8: expected the name"),
        (r#"{"a":{{b}}}"#, "the payload is not JSON"),
        ("{", "the payload is not JSON"),
        ("", "the payload is not JSON"),
    ] {
        let error = payload(source, "{}").expect_err(source);
        assert!(error.starts_with(what), "{source}: {error}");
    }
    let deep = format!("{}{}", "[".repeat(2000), "]".repeat(2000));
    let _ = payload(&deep, "{}");
}

/// A value at a place of a document, with what each string shall become.
fn document() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<i64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
        Just(Value::from("{{a}}")),
        Just(Value::from("x {{a}} \" \\ {{b}}")),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map("[^{]{0,4}", inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn expected(document: &Value, a: &str, b: &str) -> Value {
    match document {
        Value::String(text) => Value::from(match text.as_str() {
            "{{a}}" => a.to_owned(),
            "x {{a}} \" \\ {{b}}" => format!("x {a} \" \\ {b}"),
            other => other.to_owned(),
        }),
        Value::Array(all) => all.iter().map(|value| expected(value, a, b)).collect(),
        Value::Object(all) => Value::Object(
            all.iter().map(|(name, value)| (name.clone(), expected(value, a, b))).collect(),
        ),
        other => other.clone(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1000, failure_persistence: None, ..Default::default()
    })]

    #[test]
    fn no_value_breaks_out_of_its_string(
        document in document().prop_filter("braces", |document| {
            let text = document.to_string();
            text.matches("{{").count() == text.matches("{{a}}").count() + text.matches("{{b}}").count()
        }),
        a in any::<String>(),
        b in "[\"\\\\\u{0}-\u{20}{}]{0,12}",
    ) {
        let object = serde_json::json!({ "a": a, "b": b }).to_string();
        let rendered = payload(&document.to_string(), &object).expect("it fits");
        let read: Value = serde_json::from_str(&rendered).expect("it is JSON");
        prop_assert_eq!(read, expected(&document, &a, &b));
    }

    #[test]
    fn no_source_panics(
        text in any::<String>(),
        soup in proptest::collection::vec(proptest::sample::select(vec![
            "{{", "}}", "a", "|", "default", ":", "\"", "\\", " ", "truncate", "1", "upper", "é", "{",
            "[", ",", "]", "}",
        ]), 0..40),
        object in any::<String>(),
    ) {
        let soup = soup.concat();
        for source in [&text, &soup] {
            let _ = (render(source, "{}"), payload(source, "{}"), render("{{a}}", source));
            let quoted = serde_json::json!([source]).to_string();
            let _ = (payload(&quoted, &object), payload(&quoted, "{\"a\":\"\\\"\"}"));
        }
    }

    #[test]
    fn text_without_braces_is_itself(text in "[^{]{0,40}") {
        prop_assert_eq!(render(&text, "{}"), Ok(text));
    }
}
