//! What the original service's command line asks of other servers than the database, before and
//! between what it asks of the database: who may do what, which databases a project has, where they
//! are. Pointed here, it finds everything here.

use super::reply::Reply;
use crate::json::{self, Item};
use crate::wire::http;

/// A request of the tools.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tool {
    /// `POST /v1/projects/P:testIamPermissions`: which of these permissions the user has.
    Permissions,
    /// A project, its databases, or one of them.
    Lookup(Lookup),
}

/// What is looked up, with what is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// The database, if it is one: what the tool asks next, without a name, is meant for it.
    pub namespace: Option<String>,
    /// The answer: JSON.
    pub answer: Vec<u8>,
}

/// Recognises a request of the tools.
pub(super) fn read(head: &http::Head<'_>, path: &str) -> Option<Tool> {
    if head.method == "POST" && path.starts_with("/v1/projects/") && path.ends_with(":testIamPermissions") {
        return Some(Tool::Permissions);
    }
    if head.method != "GET" {
        return None;
    }
    let url = || {
        let scheme = if head.is_https() { "https" } else { "http" };
        format!("{scheme}://{}", head.host())
    };
    if let Some(rest) = path.strip_prefix("/v1beta/projects/") {
        let (project, rest) = rest.split_once("/locations/")?;
        let (_, instance) = rest.split_once("/instances")?;
        return match instance.strip_prefix('/') {
            None if instance.is_empty() => {
                Some(Tool::Lookup(Lookup { namespace: None, answer: br#"{"instances":[]}"#.to_vec() }))
            }
            None => None,
            Some(name) => {
                let answer = object(&[
                    ("name", &format!("projects/{project}/locations/us-central1/instances/{name}")),
                    ("project", &format!("projects/{project}")),
                    ("databaseUrl", &url()),
                    ("type", "USER_DATABASE"),
                    ("state", "ACTIVE"),
                ]);
                Some(Tool::Lookup(Lookup { namespace: Some(name.to_owned()), answer }))
            }
        };
    }
    if let Some(project) = path.strip_prefix("/v1beta1/projects/").filter(|rest| !rest.contains('/')) {
        let mut answer = object(&[("projectId", project), ("projectNumber", "1"), ("state", "ACTIVE")]);
        answer.pop();
        answer.extend_from_slice(b",\"resources\":");
        answer.extend(object(&[("realtimeDatabaseInstance", &format!("{project}-default-rtdb"))]));
        answer.push(b'}');
        return Some(Tool::Lookup(Lookup { namespace: None, answer }));
    }
    let setting: &[u8] = match path {
        "/.settings/defaultWriteSizeLimit.json" => br#"{"value":"unlimited"}"#,
        "/.settings/strictTriggerValidation.json" => br#"{"value":false}"#,
        _ => return None,
    };
    Some(Tool::Lookup(Lookup { namespace: None, answer: setting.to_vec() }))
}

fn object(members: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut separator = b'{';
    for (name, value) in members {
        out.push(separator);
        separator = b',';
        json::text(&mut out, name);
        out.push(b':');
        json::text(&mut out, value);
    }
    out.push(b'}');
    out
}

impl Tool {
    /// The answer; the body is destroyed.
    #[must_use]
    pub fn answer(&self, body: &mut [u8], reader: &mut json::Reader) -> Reply {
        match self {
            Self::Lookup(lookup) => Reply::json(200, &lookup.answer),
            // Whoever may come here may ask; whether the request itself is allowed is decided with it.
            Self::Permissions => {
                let mut out = b"{\"permissions\":[".to_vec();
                let _ = reader.read(body, |item| {
                    let Some(Item::Array(names)) = item.get("permissions") else { return };
                    for (index, name) in names.filter_map(Item::as_text).enumerate() {
                        if index > 0 {
                            out.push(b',');
                        }
                        json::text(&mut out, name);
                    }
                });
                out.extend_from_slice(b"]}");
                Reply::json(200, &out)
            }
        }
    }
}
