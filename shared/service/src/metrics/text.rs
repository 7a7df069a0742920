//! Prometheus' text format, version 0.0.4: `# HELP`, `# TYPE`, then the samples of the family.

use std::fmt::Write;

/// The content type of a page.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Summary,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Summary => "summary",
        }
    }
}

/// A page as it grows.
#[derive(Debug, Default)]
pub(super) struct Page(String);

/// Writing to a `String` cannot fail.
macro_rules! put {
    ($page:expr, $($arg:tt)*) => {{
        let _ = write!($page.0, $($arg)*);
    }};
}

impl Page {
    pub(super) fn family(&mut self, name: &str, help: &str, kind: Kind) {
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        put!(self, "# HELP {name} {help}\n# TYPE {name} {}\n", kind.name());
    }

    pub(super) fn sample(&mut self, name: &str, suffix: &str, labels: &[(&str, &str)], value: f64) {
        self.series(name, suffix, labels);
        if value.is_infinite() {
            put!(self, " {}Inf\n", if value > 0.0 { '+' } else { '-' });
        } else {
            put!(self, " {value}\n");
        }
    }

    /// Without the loss of a detour through floating point.
    pub(super) fn sample_int(&mut self, name: &str, labels: &[(&str, &str)], value: i128) {
        self.series(name, "", labels);
        put!(self, " {value}\n");
    }

    fn series(&mut self, name: &str, suffix: &str, labels: &[(&str, &str)]) {
        put!(self, "{name}{suffix}");
        for (index, (label, value)) in labels.iter().enumerate() {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            put!(self, "{}{label}=\"{value}\"", if index == 0 { '{' } else { ',' });
        }
        if !labels.is_empty() {
            put!(self, "}}");
        }
    }

    pub(super) fn into_text(self) -> String {
        self.0
    }
}

pub(super) fn is_metric_name(name: &str) -> bool {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_';
    name.starts_with(first) && name.chars().all(|c| first(c) || c.is_ascii_digit())
}

pub(super) fn is_label_name(name: &str) -> bool {
    is_metric_name(name) && !name.starts_with("__") && name != "quantile"
}
