//! `openapi.json` describes the routes that there are, and no others. The routes are read from the
//! source that makes them: axum does not tell those of a router.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

const METHODS: [&str; 5] = ["get", "put", "post", "patch", "delete"];

/// Where routes are made.
const SOURCES: [&str; 2] = [include_str!("../api.rs"), include_str!("platform/mod.rs")];

/// Those of every daemon, see [`sextant_service::admin`].
const COMMON: [&str; 3] = ["get /healthz", "get /metrics", "get /readyz"];

fn document() -> Value {
    serde_json::from_str(include_str!("../../openapi.json")).expect("the document is JSON")
}

fn object(value: &Value) -> &Map<String, Value> {
    value.as_object().expect("an object")
}

/// What stands between a parenthesis that was opened before `text` and its end.
fn within(text: &str) -> &str {
    let mut depth = 1;
    let end = text.find(|char| {
        depth += i32::from(char == '(') - i32::from(char == ')');
        depth == 0
    });
    &text[..end.expect("a route ends")]
}

/// Whether `call` has a call of the function `name`.
fn calls(call: &str, name: &str) -> bool {
    let mut found = call.match_indices(name);
    found.any(|(at, _)| {
        let before = call[..at].chars().next_back();
        let is_word = before.is_some_and(|char| char.is_alphanumeric() || char == '_');
        !is_word && call[at + name.len()..].starts_with('(')
    })
}

/// Methods and paths of the router.
fn routes() -> BTreeSet<String> {
    let mut routes: BTreeSet<String> = COMMON.map(str::to_owned).into();
    for call in SOURCES.iter().flat_map(|source| source.split(".route(").skip(1)) {
        let call = within(call);
        let path = call.split('"').nth(1).expect("a route has a path");
        let methods: Vec<&str> = METHODS.into_iter().filter(|method| calls(call, method)).collect();
        assert!(!methods.is_empty(), "{path} has a method");
        routes.extend(methods.into_iter().map(|method| format!("{method} {path}")));
    }
    routes
}

/// What the document says of each method of each path.
fn operations(document: &Value) -> Vec<(String, &Value)> {
    let paths = object(&document["paths"]).iter();
    let operations = paths.flat_map(|(path, methods)| {
        object(methods).iter().map(move |(method, says)| (format!("{method} {path}"), says))
    });
    operations.collect()
}

#[test]
fn the_document_describes_every_route_and_no_other() {
    let document = document();
    let described: BTreeSet<String> =
        operations(&document).into_iter().map(|(route, _)| route).collect();
    let routes = routes();
    assert!(routes.len() > 40, "the routes are found: {routes:?}");
    let undescribed: Vec<_> = routes.difference(&described).collect();
    assert!(undescribed.is_empty(), "openapi.json lacks {undescribed:?}");
    let unknown: Vec<_> = described.difference(&routes).collect();
    assert!(unknown.is_empty(), "openapi.json describes what there is not: {unknown:?}");
}

#[test]
fn an_operation_tells_its_parameters_its_errors_and_who_may() {
    let document = document();
    assert_eq!(document["openapi"], "3.1.0");
    let mut ids = BTreeSet::new();
    for (route, says) in operations(&document) {
        let id = says["operationId"].as_str().expect("an operation has an id");
        assert!(ids.insert(id), "{route}: {id} is another's");
        let answers = object(&says["responses"]);
        assert!(answers.keys().any(|status| status.starts_with('2')), "{route}: it may succeed");
        let is_open = says["security"].as_array().expect("an operation says who may").is_empty();
        assert_eq!(is_open, !answers.contains_key("401"), "{route}: a token, and 401 without");
        let of_path = route.split('{').skip(1).filter_map(|rest| rest.split('}').next());
        let told = says["parameters"].as_array().into_iter().flatten();
        let told: Vec<&Value> = told.map(|parameter| resolve(&document, parameter)).collect();
        for name in of_path {
            let is_it = |told: &&Value| told["in"] == "path" && told["name"] == name;
            assert!(told.iter().any(is_it), "{route}: {name} is not described");
        }
    }
}

/// What a reference means, or `value` itself.
fn resolve<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    let Some(place) = value["$ref"].as_str() else { return value };
    let place = place.strip_prefix('#').expect("references are within the document");
    document.pointer(place).unwrap_or_else(|| panic!("{place} is not there"))
}

#[test]
fn every_reference_of_the_document_leads_somewhere_and_nothing_is_unused() {
    fn walk<'a>(document: &'a Value, value: &'a Value, used: &mut BTreeSet<&'a str>) {
        match value {
            Value::Object(map) => {
                if let Some(place) = map.get("$ref").and_then(Value::as_str) {
                    resolve(document, value);
                    used.insert(place);
                }
                map.values().for_each(|value| walk(document, value, used));
            }
            Value::Array(values) => values.iter().for_each(|value| walk(document, value, used)),
            _ => {}
        }
    }
    let document = document();
    let mut used = BTreeSet::new();
    walk(&document, &document, &mut used);
    for kind in ["parameters", "responses", "schemas"] {
        for name in object(&document["components"][kind]).keys() {
            let place = format!("#/components/{kind}/{name}");
            assert!(used.contains(&*place), "nothing refers to {place}");
        }
    }
}
