//! What the tests of this crate share: inputs, and guests written by hand.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use plugins_runtime::placement::{Columns, HostState, PlacementInput, Request};
use plugins_runtime::{Limits, Runtime};
use std::fmt::Write as _;
use std::path::Path;
use types::Revision;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};

pub const GIB: u64 = 1 << 30;

/// A runtime with its own cache, gone after the test.
pub fn runtime(limits: Limits) -> (Runtime, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (Runtime::new(limits, folder.path()).unwrap(), folder)
}

/// A request for 1 GiB and one vCPU on that many empty hosts.
pub fn input(hosts: usize) -> PlacementInput {
    let columns = Columns {
        names: (0..hosts).map(|index| format!("host-{index}")).collect(),
        sites: vec!["lyon".to_owned(); hosts],
        states: vec![HostState::Ready; hosts],
        memory_total_bytes: vec![8 * GIB; hosts],
        memory_free_bytes: vec![8 * GIB; hosts],
        disk_free_bytes: vec![100 * GIB; hosts],
        cpu_total_milli: vec![4000; hosts],
        cpu_free_milli: vec![4000; hosts],
        instance_counts: vec![0; hosts],
        loads: vec![0.0; hosts],
        image_cached_bytes: vec![0; hosts],
        peers: vec![0; hosts],
        ..Columns::default()
    };
    let request = Request {
        instance: "office/workspace".to_owned(),
        deployment: "office".to_owned(),
        member: "workspace".to_owned(),
        appliance: "acme/workspace".to_owned(),
        version: "1.0.0".to_owned(),
        vcpus_milli: 1000,
        memory_bytes: GIB,
        disk_bytes: GIB,
        image_bytes: GIB,
        ..Request::default()
    };
    PlacementInput {
        decision_id: "d1".to_owned(),
        seed: 7,
        now_ms: 1_700_000_000_000,
        revision: Revision(3),
        settings: serde_json::Value::Null,
        request,
        hosts: columns,
    }
}

/// A guest of the world `placement-policy`, as a core module around hand-made memory.
pub struct Guest {
    /// `(import ..)` lines.
    pub imports: &'static str,
    /// Instructions of `place`; they leave the address of the answer.
    pub place: String,
    /// Instructions of `describe` before it leaves the address of the manifest.
    pub describe: &'static str,
    /// What `name` says.
    pub name: &'static str,
    /// The answer's bytes, at [`ANSWER`].
    pub answer: Vec<u8>,
}

/// Address of the answer.
pub const ANSWER: u32 = 4096;
/// Address of the choices of the answer.
pub const CHOICES: u32 = ANSWER + 64;

const MANIFEST: u32 = 1024;

impl Default for Guest {
    fn default() -> Self {
        Self {
            imports: "",
            place: format!("(i32.const {ANSWER})"),
            describe: "",
            name: "hand-made",
            answer: placed(&[(0, 1.0)]),
        }
    }
}

/// `ok(place({choices, rejections: []}))` with choices that have no reasons.
pub fn placed(choices: &[(u32, f64)]) -> Vec<u8> {
    let count = u32::try_from(choices.len()).unwrap();
    let mut bytes = placed_at(CHOICES, count);
    for (host, score) in choices {
        bytes.extend(u64::from(*host).to_le_bytes());
        bytes.extend(score.to_le_bytes());
        bytes.extend([0; 8]);
    }
    bytes
}

/// `ok(place(..))` whose list of choices has that address and length.
pub fn placed_at(address: u32, count: u32) -> Vec<u8> {
    let mut bytes = vec![0; 16];
    bytes.extend(address.to_le_bytes());
    bytes.extend(count.to_le_bytes());
    bytes.resize((CHOICES - ANSWER) as usize, 0);
    bytes
}

/// `err(error)` with the case of that number and a text.
pub fn declined(case: u8, text: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 64];
    (bytes[0], bytes[8]) = (1, case);
    bytes[12..16].copy_from_slice(&CHOICES.to_le_bytes());
    bytes[16..20].copy_from_slice(&u32::try_from(text.len()).unwrap().to_le_bytes());
    bytes.extend(text);
    bytes
}

impl Guest {
    /// The component.
    pub fn build(&self) -> Vec<u8> {
        let mut module = wat::parse_str(self.text()).unwrap();
        let mut resolve = wit_parser::Resolve::default();
        let (package, _) = resolve.push_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit")).unwrap();
        let world = resolve.select_world(&[package], Some("placement-policy")).unwrap();
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
        ComponentEncoder::default().validate(true).module(&module).unwrap().encode().unwrap()
    }

    fn text(&self) -> String {
        let Self { imports, place, describe, .. } = self;
        let (manifest, answer) = (data(MANIFEST, &self.manifest()), data(ANSWER, &self.answer));
        format!(
            r#"(module
              {imports}
              (memory (export "memory") 4)
              (global $next (mut i32) (i32.const 131072))
              {manifest}
              {answer}
              (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
                (local $at i32)
                (local.set $at (global.get $next))
                (global.set $next (i32.and
                  (i32.add (i32.add (global.get $next) (local.get 3)) (i32.const 7)) (i32.const -8)))
                (local.get $at))
              (func (export "collective:policy/plugin@0.1.1#describe") (result i32)
                {describe} (i32.const {MANIFEST}))
              (func (export "collective:policy/plugin@0.1.1#validate-settings") (param i32 i32) (result i32)
                (i32.const 512))
              (func $place (export "collective:policy/placement@0.1.1#place") (param i32) (result i32)
                {place}))"#
        )
    }

    fn manifest(&self) -> Vec<u8> {
        let texts = [self.name, "1.2.3", "A test.", "Apache-2.0", "{}", "{}"];
        let (mut record, mut strings) = (Vec::new(), Vec::new());
        for text in texts {
            let at = MANIFEST as usize + 8 * texts.len() + strings.len();
            record.extend(u32::try_from(at).unwrap().to_le_bytes());
            record.extend(u32::try_from(text.len()).unwrap().to_le_bytes());
            strings.extend(text.as_bytes());
        }
        [record, strings].concat()
    }
}

fn data(at: u32, bytes: &[u8]) -> String {
    let mut text = format!("(data (i32.const {at}) \"");
    for byte in bytes {
        write!(text, "\\{byte:02x}").unwrap();
    }
    text + "\")"
}
