use proptest::prelude::*;

use super::*;

fn rule(name: &str, when: Condition, outcome: Outcome) -> ContentRule {
    ContentRule {
        name: name.to_owned(),
        when,
        outcome,
        reason: format!("because of {name}"),
        apps: Vec::new(),
        classes: Vec::new(),
        categories: Vec::new(),
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn contents(rules: &[ContentRule]) -> Contents {
    let mut faults = Faults::default();
    let contents = Contents::new(rules, &mut faults);
    assert_eq!(faults.0, []);
    contents
}

fn faults(rules: &[ContentRule]) -> Vec<String> {
    let mut faults = Faults::default();
    Contents::new(rules, &mut faults);
    faults.0.iter().map(|fault| format!("{}: {}", fault.key, fault.what)).collect()
}

fn says(text: &str) -> Content<'_> {
    Content { text, ..Content::default() }
}

/// Whether one rule with this condition fits a text.
fn fits(when: Condition, text: &str) -> bool {
    contents(&[rule("r", when, Outcome::Reject)]).decide("shop", "marketing", &says(text)).is_some()
}

#[test]
fn keywords_are_found_whole_in_whatever_case_and_width() {
    let has = |keyword: &str, text: &str| fits(Condition::Keywords(words(&[keyword])), text);
    for (keyword, text) in [
        ("casino", "the CASINO is open"),
        ("casino", "Casino!"),
        ("casino", "c\u{200B}a\u{AD}sino"),
        ("casino", "ｃａｓｉｎｏ"),
        ("STRASSE", "die Straße"),
        ("straße", "DIE STRASSE"),
        ("ΣΊΣΥΦΟΣ", "σίσυφος"),
        ("free money", "Free Money now"),
        ("c++", "C++ for you"),
        ("赌博", "网络赌博平台"),
        ("카지노", "카지노에서"),
        ("vip", "加VIP领取"),
        ("加v", "请加Ｖ信"),
        ("café", "CAFE\u{301}"),
        ("-50%", "now -50% off"),
    ] {
        assert!(has(keyword, text), "{keyword} in {text}");
    }
    for (keyword, text) in [
        ("casino", "casinos"),
        ("sex", "Essex"),
        ("ass", "a class"),
        ("a_b", "xa_b"),
        ("vip", "vip2"),
        ("free money", "free  money"),
        ("राम", "रामायण"),
    ] {
        assert!(!has(keyword, text), "{keyword} not in {text}");
    }
}

#[test]
fn a_keyword_within_another_is_found_too() {
    let rules = [
        rule("long", Condition::Keywords(words(&["new york pizza"])), Outcome::Reject),
        rule("short", Condition::Keywords(words(&["york", "x"])), Outcome::Review),
    ];
    let contents = contents(&rules);
    let decided = |text| contents.decide("a", "c", &says(text)).map(|hit| hit.rule);
    assert_eq!(decided("a New York Pizza"), Some("long"));
    assert_eq!(decided("a New York pizzas"), Some("short"));
    assert_eq!(decided("a New Yorker"), None);
}

#[test]
fn the_first_rule_that_fits_decides() {
    let keyword = |word: &str| Condition::Keywords(words(&[word]));
    let rules = [
        ContentRule { apps: words(&["bank"]), ..rule("bank-may", keyword("loan"), Outcome::Allow) },
        rule("loans", keyword("loan"), Outcome::Reject),
        ContentRule {
            categories: words(&["ads"]),
            classes: words(&["marketing"]),
            ..rule("ads", Condition::Always, Outcome::Review)
        },
    ];
    let contents = contents(&rules);
    let decided = |app, class, content: Content<'_>| {
        contents.decide(app, class, &content).map(|hit| (hit.rule, hit.outcome, hit.reason))
    };
    let allowed = Some(("bank-may", Outcome::Allow, "because of bank-may"));
    assert_eq!(decided("bank", "marketing", says("a loan")), allowed);
    let rejected = Some(("loans", Outcome::Reject, "because of loans"));
    assert_eq!(decided("shop", "marketing", says("a loan")), rejected);
    let ads = Content { category: Some("ads"), ..says("shoes") };
    assert_eq!(decided("shop", "marketing", ads).map(|hit| hit.0), Some("ads"));
    assert_eq!(decided("shop", "transactional", ads), None);
    assert_eq!(decided("shop", "marketing", says("shoes")), None);
    let title = Content { title: "A loan", ..says("") };
    assert_eq!(decided("shop", "marketing", title), rejected);
}

#[test]
fn links_are_told_by_their_hosts() {
    let to = |host: &str, text: &str| fits(Condition::LinksTo(words(&[host])), text);
    for (host, text) in [
        ("evil.example", "see http://evil.example/x"),
        ("evil.example", "see HTTPS://www.EVIL.example"),
        ("evil.example", "see evil.example."),
        ("evil.example", "看evil.example领取"),
        ("evil.example", "看http://evil.example领取"),
        ("evil.example", "http://good.example@evil.example:8080/"),
        ("evil.example", "http:\\\\evil.example"),
        ("evil.example", "http:///evil.example"),
        ("evil.example", "(https://evil.example)"),
        ("evil.example", "https://evil。example/"),
        ("evil.example.", "ｅｖｉｌ.example"),
        ("bücher.example", "https://xn--bcher-kva.example/"),
        ("xn--bcher-kva.example", "BÜCHER.example"),
        ("10.0.0.1", "http://10.0.0.1/"),
        ("例子.中国", "http://www.例子.中国/"),
        ("evil.example", "intent://evil.example#Intent;scheme=https;end"),
    ] {
        assert!(to(host, text), "{host} in {text}");
    }
    for (host, text) in [
        ("evil.example", "http://evil.example.org"),
        ("evil.example", "http://notevil.example"),
        ("evil.example", "http://good.example/evil.example"),
        ("evil.example", "mail me@evil.example"),
        ("evil.example", "shop://evil.example"),
        ("example", "an example"),
    ] {
        assert!(!to(host, text), "{host} not in {text}");
    }
}

#[test]
fn links_to_others_than_ones_own_are_told() {
    let outside = |text: &str| fits(Condition::LinksOutside(words(&["shop.example"])), text);
    for text in [
        "https://other.example",
        "www.other.example",
        "http://shop.example.org/",
        "http://shop.example@other.example",
        "http://",
        "http://%00/",
        "http://[::1]/",
    ] {
        assert!(outside(text), "{text}");
    }
    for text in [
        "https://shop.example/a",
        "https://m.SHOP.example",
        "no link",
        "Hello.World",
        "shop://cart/1",
        "https://shop.example/?next=https",
        "3.2.1",
        "",
        "http:",
        "a://b",
    ] {
        assert!(!outside(text), "{text}");
    }
    let rules = [rule("r", Condition::LinksOutside(words(&["shop.example"])), Outcome::Reject)];
    let contents = contents(&rules);
    let click = Content { links: &["https://other.example/x"], ..Content::default() };
    assert!(contents.decide("a", "c", &click).is_some());
}

#[test]
fn patterns_and_lengths_look_at_title_and_text() {
    assert!(fits(Condition::Pattern(r"(?i)\bwin\s+\d+".to_owned()), "WIN 100"));
    assert!(!fits(Condition::Pattern(r"\bwin\s+\d+".to_owned()), "WIN 100"));
    assert!(fits(Condition::LongerThan(3), "äöüß"));
    assert!(!fits(Condition::LongerThan(4), "äöüß"));
    assert!(fits(Condition::Always, ""));
}

#[test]
fn a_pattern_that_is_slow_elsewhere_is_linear() {
    let text = "a".repeat(1 << 20);
    let begin = std::time::Instant::now();
    assert!(!fits(Condition::Pattern("(a*)*b|(a|aa)+$^c".to_owned()), &text));
    // Backtracking would take longer than there is time.
    assert!(begin.elapsed().as_secs() < 10);
}

#[test]
fn what_cannot_be_a_rule_is_named_by_its_key() {
    let long = "k".repeat(129);
    let rules = [
        rule("A", Condition::Always, Outcome::Allow),
        rule("twice", Condition::Pattern("(".to_owned()), Outcome::Allow),
        rule("twice", Condition::Pattern("a{1000}{1000}".to_owned()), Outcome::Allow),
        rule("backs", Condition::Pattern(r"(a)\1".to_owned()), Outcome::Allow),
        rule("long", Condition::Pattern("a".repeat(1025)), Outcome::Allow),
        rule("words", Condition::Keywords(words(&["ok", "", "\u{200B}", &long])), Outcome::Allow),
        rule(
            "hosts",
            Condition::LinksTo(words(&["ok.example", "http://x", "a b"])),
            Outcome::Allow,
        ),
        ContentRule { apps: words(&["a", "B"]), ..rule("apps", Condition::Always, Outcome::Allow) },
    ];
    let told = faults(&rules);
    let keys: Vec<&str> = told.iter().filter_map(|fault| Some(fault.split_once(": ")?.0)).collect();
    let expected = [
        "content[0].name",
        "content[1].when.pattern",
        "content[2].name",
        "content[2].when.pattern",
        "content[3].when.pattern",
        "content[4].when.pattern",
        "content[5].when.keywords[1]",
        "content[5].when.keywords[2]",
        "content[5].when.keywords[3]",
        "content[6].when.links_to[1]",
        "content[6].when.links_to[2]",
        "content[7].apps[1]",
    ];
    assert_eq!(keys, expected, "{told:#?}");
    let pattern = rule("p", Condition::Pattern("a".to_owned()), Outcome::Allow);
    let many = vec![pattern; PATTERNS_MAX + 1];
    assert!(faults(&many).iter().any(|fault| fault.contains("patterns")));
    let long: Vec<String> = (0..20_000).map(|number| format!("{number:0>120}")).collect();
    let told = faults(&[rule("long", Condition::Keywords(long), Outcome::Allow)]);
    assert_eq!(told, ["content: there are more than 100000 keywords or 2097152 bytes of them"]);
    let many = vec![rule("a", Condition::Always, Outcome::Allow); RULES_MAX + 1];
    assert!(faults(&many).iter().any(|fault| fault.starts_with("content: ")));
}

/// What a sender and an operator together can make slow: every keyword at every place.
#[test]
fn keywords_within_keywords_take_no_longer_than_there_are_bytes_in_one() {
    let nested: Vec<String> = (1..=KEYWORD_BYTES_MAX).map(|len| "!".repeat(len)).collect();
    let rules: Vec<ContentRule> = (0..100)
        .map(|at| ContentRule {
            apps: words(&["nobody"]),
            ..rule(&format!("r{at}"), Condition::Keywords(nested.clone()), Outcome::Reject)
        })
        .chain([rule("last", Condition::Keywords(words(&["!?"])), Outcome::Reject)])
        .collect();
    let contents = contents(&rules);
    let text = "!".repeat(64 << 10);
    let begin = std::time::Instant::now();
    assert_eq!(contents.decide("a", "c", &says(&text)), None);
    // Eight million matches; of each rule by itself they would be a hundred times as many.
    assert!(begin.elapsed().as_secs() < 5, "{:?}", begin.elapsed());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn no_text_panics(
        text in any::<String>(),
        soup in proptest::collection::vec(proptest::sample::select(vec![
            "http", "://", "www.", "a", ".", "é", "赌", "@", ":", "/", "[", "]", "xn--", "-", " ", "\\",
            "\u{200B}", "İ", "ﬃ",
        ]), 0..60),
    ) {
        let soup = soup.concat();
        let rules = [
            rule("k", Condition::Keywords(words(&["a", "aa", "é.赌", "http"])), Outcome::Review),
            rule("p", Condition::Pattern("(?i)^a+é$".to_owned()), Outcome::Review),
            rule("t", Condition::LinksTo(words(&["a.example"])), Outcome::Review),
            rule("o", Condition::LinksOutside(words(&["a.example"])), Outcome::Review),
        ];
        let contents = contents(&rules);
        for text in [&text, &soup] {
            let content = Content { title: text, text, links: &[text], category: Some(text) };
            let _ = contents.decide(text, text, &content);
        }
    }

    #[test]
    fn no_rule_panics(text in any::<String>()) {
        faults(&[
            rule("k", Condition::Keywords(vec![text.clone()]), Outcome::Review),
            rule("p", Condition::Pattern(text.clone()), Outcome::Review),
            rule("t", Condition::LinksTo(vec![text.clone()]), Outcome::Review),
            rule(&text, Condition::LinksOutside(vec![text.clone()]), Outcome::Review),
        ]);
    }

    #[test]
    fn keywords_are_found_as_one_by_one(
        keywords in proptest::collection::vec("[abß ]{0,2}[abß]", 1..6),
        text in "[abßAB ]{0,20}",
    ) {
        let all: Vec<ContentRule> = keywords.iter().enumerate().map(|(at, keyword)| {
            rule(&at.to_string(), Condition::Keywords(vec![keyword.clone()]), Outcome::Review)
        }).collect();
        let folded = text::fold(&text);
        let whole = |keyword: &String| {
            let keyword = text::fold(keyword);
            folded.char_indices().any(|(at, _)| {
                folded[at..].starts_with(&keyword)
                    && text::is_whole(&folded, at..at + keyword.len())
            })
        };
        let found = contents(&all).find_keywords(&says(&text));
        let expected: Vec<bool> = keywords.iter().map(whole).collect();
        prop_assert_eq!(found, expected);
    }
}
