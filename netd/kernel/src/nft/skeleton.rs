//! A table's chains, sets and rules as the kernel holds them: read, compared, and written again.
//!
//! The text is compiled by the `nft` of this machine once, in an empty network namespace that goes with the thread that
//! made it. What the kernel shows of it there is what it must show here, and is put in place here byte for byte: in the
//! same atomic batch as all elements, without a child process, and without a moment in which the table is half made.

use super::message::{
    KIND_MASK, Messages, NLM_F_APPEND, NLM_F_CREATE, Nest, attribute, attributes, kind, marked, text, u32_of,
};
use super::socket::{Batch, NftSocket};
use super::{NftError, program};
use nix::sched::{CloneFlags, unshare};
use std::collections::BTreeMap;
use std::io;

const TABLE_NAME: u16 = 1;
const TABLE_FLAGS: u16 = 2;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
/// Hook, policy, type, flags.
const CHAIN_PARTS: [u16; 4] = [4, 5, 7, 10];
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
/// Expressions. The rest is numbers that the kernel gives, and notes of `nft` to itself.
const RULE_PARTS: [u16; 1] = [4];
const SET_TABLE: u16 = 1;
const SET_NAME: u16 = 2;
const SET_FLAGS: u16 = 3;
const SET_ID: u16 = 10;
/// Flags, type and length of keys and of data, policy, description, timeout, `nft`'s notes (how it shows the elements),
/// and the expressions that each element has.
const SET_PARTS: [u16; 11] = [3, 4, 5, 6, 7, 8, 9, 11, 13, 17, 18];
const SET_ANONYMOUS: u32 = 1;
const ELEMENTS_TABLE: u16 = 1;
const ELEMENTS_SET: u16 = 2;
const ELEMENTS_LIST: u16 = 3;
const LIST_ELEMENT: u16 = 1;

/// One table without the elements of its named sets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Skeleton {
    flags: u32,
    /// What a chain is, by name.
    chains: BTreeMap<String, Vec<u8>>,
    /// What a set is, by name.
    sets: BTreeMap<String, SetShape>,
    /// In the order of each chain.
    rules: BTreeMap<String, Vec<Vec<u8>>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct SetShape {
    parts: Vec<u8>,
    /// Of a set that is part of a rule. Sorted: the kernel keeps no order.
    elements: Vec<Vec<u8>>,
}

impl Skeleton {
    /// Reads a table; none if there is none.
    pub(super) fn read(socket: &mut NftSocket, table: &str) -> Result<Option<Self>, NftError> {
        let mut flags = None;
        let found = socket.get(kind::GET_TABLE, "show a table", &[(TABLE_NAME, table)], |attributes| {
            flags = attribute(attributes, TABLE_FLAGS).and_then(u32_of);
        })?;
        if !found {
            return Ok(None);
        }
        let mut skeleton = Self { flags: flags.unwrap_or_default(), ..Self::default() };
        skeleton.chains = socket.dump(kind::GET_CHAIN, "list the chains", &[], |chains, message| {
            if is_of(message, CHAIN_TABLE, table) {
                let chains: &mut BTreeMap<_, _> = chains;
                chains.insert(name(message, CHAIN_NAME), parts(message, &CHAIN_PARTS));
            }
        })?;
        skeleton.rules = socket.dump(
            kind::GET_RULE,
            "list the rules",
            &[(RULE_TABLE, table)],
            |rules: &mut BTreeMap<String, Vec<Vec<u8>>>, message| {
                if is_of(message, RULE_TABLE, table) {
                    rules.entry(name(message, RULE_CHAIN)).or_default().push(parts(message, &RULE_PARTS));
                }
            },
        )?;
        let mut sets = socket.dump(
            kind::GET_SET,
            "list the sets",
            &[(SET_TABLE, table)],
            |sets: &mut BTreeMap<String, (bool, SetShape)>, message| {
                if is_of(message, SET_TABLE, table) {
                    let flags = attribute(message, SET_FLAGS).and_then(u32_of).unwrap_or_default();
                    let shape = SetShape { parts: parts(message, &SET_PARTS), elements: Vec::new() };
                    sets.insert(name(message, SET_NAME), (flags & SET_ANONYMOUS != 0, shape));
                }
            },
        )?;
        for (name, (_, shape)) in sets.iter_mut().filter(|(_, (anonymous, _))| *anonymous) {
            shape.elements = dump_elements(socket, table, name, |all: &mut Vec<Vec<u8>>, element| {
                all.push(element.to_vec());
            })?;
            shape.elements.sort();
        }
        skeleton.sets = sets.into_iter().map(|(name, (_, shape))| (name, shape)).collect();
        Ok(Some(skeleton))
    }

    /// Deletes the table, if there is one.
    pub(super) fn remove(batch: &mut Batch, table: &str) {
        batch.change(kind::NEW_TABLE, NLM_F_CREATE).text(TABLE_NAME, table);
        batch.change(kind::DELETE_TABLE, 0).text(TABLE_NAME, table);
    }

    /// Puts the table in place of whatever has its name.
    pub(super) fn write(&self, batch: &mut Batch, table: &str) {
        Self::remove(batch, table);
        batch.change(kind::NEW_TABLE, NLM_F_CREATE).text(TABLE_NAME, table);
        for (name, parts) in &self.chains {
            let message = batch.change(kind::NEW_CHAIN, NLM_F_CREATE);
            message.text(CHAIN_TABLE, table);
            message.text(CHAIN_NAME, name);
            message.raw(parts);
        }
        for (id, (name, shape)) in (1u32..).zip(&self.sets) {
            let message = batch.change(kind::NEW_SET, NLM_F_CREATE);
            message.text(SET_TABLE, table);
            message.text(SET_NAME, name);
            message.attribute(SET_ID, &id.to_be_bytes());
            message.raw(&shape.parts);
        }
        for (name, shape) in self.sets.iter().filter(|(_, shape)| !shape.elements.is_empty()) {
            let mut elements = Elements::new(batch, kind::NEW_ELEMENTS, table, name);
            for element in &shape.elements {
                elements.push(|message| message.raw(element));
            }
            elements.end();
        }
        for (chain, rules) in &self.rules {
            for rule in rules {
                let message = batch.change(kind::NEW_RULE, NLM_F_CREATE | NLM_F_APPEND);
                message.text(RULE_TABLE, table);
                message.text(RULE_CHAIN, chain);
                message.raw(rule);
            }
        }
    }
}

/// What the kernel makes of a text that holds these tables.
pub(super) async fn compile<const N: usize>(
    text: String,
    tables: [&'static str; N],
) -> Result<[Skeleton; N], NftError> {
    let (sender, answer) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("nft-compile".to_owned())
        .spawn(move || drop(sender.send(compile_here(&text, tables))))
        .map_err(NftError::Namespace)?;
    answer.await.unwrap_or(Err(NftError::Unreadable("show the compiled tables")))
}

/// In a namespace that only this thread is in.
fn compile_here<const N: usize>(text: &str, tables: [&str; N]) -> Result<[Skeleton; N], NftError> {
    unshare(CloneFlags::CLONE_NEWNET).map_err(|error| NftError::Namespace(error.into()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(NftError::Namespace)?.block_on(program::load(text))?;
    let mut socket = NftSocket::open().map_err(NftError::Namespace)?;
    let mut skeletons = tables.map(|_| Skeleton::default());
    for (skeleton, table) in skeletons.iter_mut().zip(tables) {
        let found = Skeleton::read(&mut socket, table)?;
        *skeleton = found.ok_or(NftError::Unreadable("show the compiled tables"))?;
    }
    Ok(skeletons)
}

/// The elements of one set. A set that is not there has none.
pub(super) fn dump_elements<T: Default>(
    socket: &mut NftSocket,
    table: &str,
    set: &str,
    mut each: impl FnMut(&mut T, &[u8]),
) -> Result<T, NftError> {
    let filter = [(ELEMENTS_TABLE, table), (ELEMENTS_SET, set)];
    let found = socket.dump(kind::GET_ELEMENTS, "list elements", &filter, |found, message| {
        let list = attribute(message, ELEMENTS_LIST).unwrap_or_default();
        for (_, element) in attributes(list).filter(|(kind, _)| *kind == LIST_ELEMENT) {
            each(found, element);
        }
    });
    match found {
        Err(NftError::Kernel { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(T::default()),
        other => other,
    }
}

/// Writes elements of one set, in as many messages as it takes.
pub(super) struct Elements<'a> {
    batch: &'a mut Batch,
    kind: u16,
    table: &'a str,
    set: &'a str,
    open: Option<Nest>,
}

impl<'a> Elements<'a> {
    /// Most bytes of one list: its length has 16 bits, and the last element must fit.
    const LIST_BYTES_MAX: usize = 60_000;

    pub(super) fn new(batch: &'a mut Batch, kind: u16, table: &'a str, set: &'a str) -> Self {
        Self { batch, kind, table, set, open: None }
    }

    pub(super) fn push(&mut self, write: impl FnOnce(&mut Messages)) {
        let list = match self.open.take() {
            Some(list) => list,
            None => {
                let flags = if self.kind == kind::NEW_ELEMENTS { NLM_F_CREATE } else { 0 };
                let message = self.batch.change(self.kind, flags);
                message.text(ELEMENTS_TABLE, self.table);
                message.text(ELEMENTS_SET, self.set);
                message.nest(ELEMENTS_LIST)
            }
        };
        let message = self.batch.open();
        let element = message.nest(LIST_ELEMENT);
        write(message);
        message.end_nest(&element);
        if message.nested(&list) > Self::LIST_BYTES_MAX {
            message.end_nest(&list);
        } else {
            self.open = Some(list);
        }
    }

    pub(super) fn end(mut self) {
        if let Some(list) = self.open.take() {
            self.batch.open().end_nest(&list);
        }
    }
}

fn is_of(message: &[u8], kind: u16, table: &str) -> bool {
    attribute(message, kind).is_some_and(|found| text(found) == table)
}

fn name(message: &[u8], kind: u16) -> String {
    attribute(message, kind).map(text).unwrap_or_default().to_owned()
}

/// The attributes of these kinds, in this order, as they are.
fn parts(message: &[u8], kinds: &[u16]) -> Vec<u8> {
    let mut parts = Messages::default();
    for wanted in kinds {
        // Marked as nested or not, as it came: not all of the kernel's readers are indifferent.
        for (kind, value) in marked(message).filter(|(kind, _)| kind & KIND_MASK == *wanted) {
            parts.attribute(kind, value);
        }
    }
    parts.finish()
}
