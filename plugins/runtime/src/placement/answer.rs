//! Whether an answer keeps the contract's rules. Pure: the guest is gone by now.

use super::{Choice, Rejection, Verdict};
use crate::bindings::placement::exports::collective::policy::placement as wire;
use crate::reasons::{code_of, reasons, why};
use std::collections::HashSet;
use std::sync::Arc;

const REJECTIONS_MAX: usize = 64;
const EXAMPLES_MAX: usize = 8;
const RETRY_AFTER_MS_MAX: u64 = 3_600_000;

/// Turns an answer about `names` into a verdict, or says which rule it breaks.
pub(crate) fn check(verdict: wire::Verdict, names: &[Arc<str>], choices_max: u32) -> Result<Verdict, String> {
    match verdict {
        wire::Verdict::Place(placed) => Ok(Verdict::Place {
            choices: choices(placed.choices, names, choices_max)?,
            rejections: rejections(placed.rejections, names)?,
        }),
        wire::Verdict::Defer(deferral) => {
            if !(1..=RETRY_AFTER_MS_MAX).contains(&deferral.retry_after) {
                return Err(format!(
                    "retry-after: {} ms is not in 1 ..= {RETRY_AFTER_MS_MAX}",
                    deferral.retry_after
                ));
            }
            Ok(Verdict::Defer {
                retry_after_ms: deferral.retry_after,
                reasons: why(deferral.reasons)?,
                rejections: rejections(deferral.rejections, names)?,
            })
        }
        wire::Verdict::Refuse(list) => Ok(Verdict::Refuse { reasons: why(list)? }),
    }
}

fn choices(list: Vec<wire::Choice>, names: &[Arc<str>], choices_max: u32) -> Result<Vec<Choice>, String> {
    if list.is_empty() {
        return Err("choices: it places on no host".to_owned());
    }
    if list.len() > choices_max as usize {
        return Err(format!("choices: {} are more than {choices_max}", list.len()));
    }
    let mut seen = HashSet::new();
    let mut last = f64::INFINITY;
    let mut choices = Vec::with_capacity(list.len());
    for (position, choice) in list.into_iter().enumerate() {
        let at = |problem: String| format!("choices[{position}]: {problem}");
        let host = host(choice.host, names).map_err(at)?;
        if !seen.insert(choice.host) {
            return Err(at(format!("host {host} is chosen twice")));
        }
        if !choice.score.is_finite() {
            return Err(at("the score is not finite".to_owned()));
        }
        if choice.score > last {
            return Err(at("the score is above the one before it".to_owned()));
        }
        last = choice.score;
        choices.push(Choice { host, score: choice.score, reasons: reasons(choice.reasons).map_err(at)? });
    }
    Ok(choices)
}

fn rejections(list: Vec<wire::Rejection>, names: &[Arc<str>]) -> Result<Vec<Rejection>, String> {
    if list.len() > REJECTIONS_MAX {
        return Err(format!("rejections: {} are more than {REJECTIONS_MAX}", list.len()));
    }
    let checked = list.into_iter().enumerate().map(|(position, rejection)| {
        let at = |problem: String| format!("rejections[{position}]: {problem}");
        let wire::Rejection { code, hosts, examples } = rejection;
        if hosts == 0 || hosts as usize > names.len() {
            return Err(at(format!("{hosts} of {} hosts", names.len())));
        }
        if examples.len() > EXAMPLES_MAX {
            return Err(at(format!("{} examples are more than {EXAMPLES_MAX}", examples.len())));
        }
        let examples = examples.into_iter().map(|index| host(index, names)).collect::<Result<_, _>>();
        Ok(Rejection { code: code_of(code).map_err(at)?, hosts, examples: examples.map_err(at)? })
    });
    checked.collect()
}

fn host(index: u32, names: &[Arc<str>]) -> Result<String, String> {
    let missing = || format!("there is no host {index}, only {}", names.len());
    names.get(index as usize).map(|name| name.as_ref().to_owned()).ok_or_else(missing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bindings::types;
    use proptest::prelude::*;

    fn names() -> Vec<Arc<str>> {
        vec!["a".into(), "b".into()]
    }

    fn placed(scores: &[(u32, f64)]) -> wire::Verdict {
        let choices =
            scores.iter().map(|&(host, score)| wire::Choice { host, score, reasons: Vec::new() }).collect();
        wire::Verdict::Place(wire::Placed { choices, rejections: Vec::new() })
    }

    fn problem(verdict: wire::Verdict) -> String {
        check(verdict, &names(), 2).unwrap_err()
    }

    #[test]
    fn each_rule_for_choices_has_its_own_words() {
        assert_eq!(problem(placed(&[])), "choices: it places on no host");
        assert_eq!(problem(placed(&[(0, 1.0), (1, 1.0), (0, 1.0)])), "choices: 3 are more than 2");
        assert_eq!(problem(placed(&[(2, 1.0)])), "choices[0]: there is no host 2, only 2");
        assert_eq!(problem(placed(&[(0, f64::NAN)])), "choices[0]: the score is not finite");
        assert_eq!(problem(placed(&[(0, 1.0), (0, 1.0)])), "choices[1]: host a is chosen twice");
        assert_eq!(
            problem(placed(&[(0, 1.0), (1, 2.0)])),
            "choices[1]: the score is above the one before it"
        );
    }

    #[test]
    fn a_verdict_that_places_nothing_needs_a_reason_and_a_time() {
        assert_eq!(problem(wire::Verdict::Refuse(Vec::new())), "reasons: there is none");
        let reasons = vec![types::Reason { code: "why".to_owned(), text: String::new(), weight: 0.0 }];
        let deferral = wire::Deferral { retry_after: 0, reasons, rejections: Vec::new() };
        assert_eq!(problem(wire::Verdict::Defer(deferral)), "retry-after: 0 ms is not in 1 ..= 3600000");
    }

    #[test]
    fn codes_texts_weights_and_counts_are_checked() {
        let reason = |code: &str, text: String, weight| types::Reason { code: code.to_owned(), text, weight };
        let refuse = |reason| problem(wire::Verdict::Refuse(vec![reason]));
        assert!(refuse(reason("Bad Code", String::new(), 0.0)).contains("the code \"Bad Code\""));
        assert!(refuse(reason("a", "x".repeat(1025), 0.0)).contains("the text has 1025 bytes"));
        assert!(refuse(reason("a", String::new(), f64::INFINITY)).contains("the weight is not finite"));
        let many = (0..33).map(|_| reason("a", String::new(), 0.0)).collect();
        assert_eq!(problem(wire::Verdict::Refuse(many)), "reasons: 33 are more than 32");
        let rejection = wire::Rejection { code: "a".to_owned(), hosts: 3, examples: Vec::new() };
        let placed = wire::Placed {
            choices: vec![wire::Choice { host: 0, score: 0.0, reasons: Vec::new() }],
            rejections: vec![rejection],
        };
        assert_eq!(problem(wire::Verdict::Place(placed)), "rejections[0]: 3 of 2 hosts");
    }

    proptest! {
        #[test]
        fn what_passes_names_known_hosts_once_with_falling_finite_scores(
            scores in proptest::collection::vec((0u32..4, any::<f64>()), 0..5),
        ) {
            if let Ok(Verdict::Place { choices, .. }) = check(placed(&scores), &names(), 4) {
                prop_assert!(!choices.is_empty());
                prop_assert!(choices.iter().all(|choice| choice.score.is_finite()));
                prop_assert!(choices.windows(2).all(|pair| pair[0].score >= pair[1].score));
                let hosts: HashSet<_> = choices.iter().map(|choice| &choice.host).collect();
                prop_assert_eq!(hosts.len(), choices.len());
            }
        }
    }
}
