//! Components in a real registry (Debian's `docker-registry`), and in registries that lie.
#![allow(clippy::unwrap_used, reason = "in a test's helpers too, a panic is the failure")]

mod hostile;
mod real;

use plugins_artifact::registry::{About, Patience};
use plugins_artifact::{Kind, Root, SecretKey, Statement, digest, sign};
use std::time::Duration;

/// Short enough for a test that a stranger keeps waiting.
const PATIENCE: Patience = Patience { idle: Duration::from_secs(2), total: Duration::from_secs(20) };

struct Signed {
    component: Vec<u8>,
    statement: Statement,
    envelope: Vec<u8>,
    roots: Vec<Root>,
}

fn signed() -> Signed {
    let component = b"\0asm not really".repeat(1000);
    let key = SecretKey::generate().unwrap();
    let statement = Statement {
        component: digest(&component),
        kind: Kind::Placement,
        name: "balanced".into(),
        version: "1.2.3".into(),
    };
    let envelope = sign(&statement, &key).unwrap();
    let roots = vec![Root { name: "acme".into(), key: key.public(), kinds: Kind::ALL.into() }];
    Signed { component, statement, envelope, roots }
}

fn about() -> About {
    About {
        summary: "Spreads.".into(),
        license: "Apache-2.0".into(),
        imports: vec!["collective:policy/cluster@0.1.1".into()],
        exports: vec!["collective:policy/placement@0.1.1".into()],
    }
}
