//! The console: one page that comes with the server, and asks it what everybody may ask.
//!
//! The surprising idea: it has no privileges and no way of its own. Whoever can load it sees an empty page;
//! what it shows it asks for with the credential of whoever sits before it. Costs: its text, in the binary.

use super::reply::{Content, Reply};
use crate::wire::http;

const HTML: &str = include_str!("console/index.html");
const STYLE: &str = include_str!("console/console.css");
const SCRIPT: &str = include_str!("console/console.js");
const ICON: &str = include_str!("console/icon.svg");

/// What the page may do: load its own parts and speak with this server. Nothing inline, nothing from elsewhere,
/// and it is nobody's frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Whether a browser asks for the server's root, and not a program.
pub(super) fn is_page_wanted(head: &http::Head<'_>) -> bool {
    head.headers.lists("accept", "text/html")
}

/// The page.
pub(super) fn page() -> Reply {
    asset("text/html", HTML)
}

/// A part of the page.
pub(super) fn part(head: &http::Head<'_>, path: &str) -> Option<Reply> {
    if !matches!(head.method, "GET" | "HEAD") {
        return None;
    }
    match path {
        "/.stillhere/console.css" => Some(asset("text/css", STYLE)),
        "/.stillhere/console.js" => Some(asset("text/javascript", SCRIPT)),
        "/.stillhere/icon.svg" => Some(asset("image/svg+xml", ICON)),
        _ => None,
    }
}

fn asset(kind: &'static str, text: &'static str) -> Reply {
    let headers = vec![
        ("Content-Security-Policy", POLICY.to_owned()),
        ("Referrer-Policy", "no-referrer".to_owned()),
        ("X-Frame-Options", "DENY".to_owned()),
        ("Cross-Origin-Opener-Policy", "same-origin".to_owned()),
    ];
    Reply { status: 200, content: Content::Asset { kind, text }, headers, ..Reply::NOTHING }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_writes_text_and_no_markup() {
        for bad in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "Function(",
            "srcdoc",
            "javascript:",
        ] {
            assert!(!SCRIPT.contains(bad), "{bad}");
        }
        assert!(
            !SCRIPT.contains("localStorage") && !SCRIPT.contains("document.cookie"),
            "a credential stays in its tab"
        );
    }

    #[test]
    fn the_page_needs_nothing_from_elsewhere_and_nothing_inline() {
        let names = "http://www.w3.org/2000/svg";
        for text in [HTML, STYLE, SCRIPT, ICON] {
            let text = text.replace(names, "");
            assert!(!text.contains("http://") && !text.contains("https://") && !text.contains("@import"), "{text}");
        }
        for bad in [" style=", " onclick=", "<style", "<script>"] {
            assert!(!HTML.contains(bad), "{bad}");
        }
    }
}
