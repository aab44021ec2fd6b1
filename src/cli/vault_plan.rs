//! The plan of an import, in words and as JSON: names, never values.

use serde::Serialize;

use super::{
    output::{Output, Style},
    vault_import::Doing,
};
use crate::import::{Plan, Refused};

/// Every name and what becomes of it, then every refusal.
pub(super) fn show(plan: &Plan, doing: &Doing, out: &mut Output) {
    if doing.json {
        let secrets = plan.names().map(|(service, target, exists)| SecretJson {
            service: service.as_str(),
            target: target.as_str(),
            does: doing.word(exists),
        });
        let refused = plan.refused().iter().map(|refused| RefusedJson {
            name: &refused.name,
            line: refused.place.map(|place| place.line),
            why: refused.why.to_string(),
        });
        out.json(&PlanJson { apply: doing.apply, secrets: secrets.collect(), refused: refused.collect() });
        return;
    }
    for (service, target, exists) in plan.names() {
        let word = doing.word(exists);
        let style = if exists { Style::Warn } else { Style::Good };
        out.cells(&[(style, &format!("{word:<10}")), (Style::Plain, &format!("{service}  {target}"))]);
    }
    for Refused { name, place, why } in plan.refused() {
        let line = place.map(|place| format!(" (line {})", place.line)).unwrap_or_default();
        out.cells(&[(Style::Bad, "refused   "), (Style::Plain, &format!("{name}{line}: {why}"))]);
    }
}

#[derive(Serialize)]
struct PlanJson<'p> {
    apply: bool,
    secrets: Vec<SecretJson<'p>>,
    refused: Vec<RefusedJson<'p>>,
}

#[derive(Serialize)]
struct SecretJson<'p> {
    service: &'p str,
    target: &'p str,
    does: &'static str,
}

#[derive(Serialize)]
struct RefusedJson<'p> {
    name: &'p str,
    line: Option<usize>,
    why: String,
}
