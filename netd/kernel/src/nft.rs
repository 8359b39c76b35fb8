//! Our tables of nftables: the rules, and the conversations that are counted behind them.

mod elements;
mod flows;
mod ladder;
mod message;
pub(crate) mod program;
mod skeleton;
mod socket;

use elements::Layouts;
use message::kind;
use netd_api::Counter;
use netd_plan::{
    Conversation, Counters, Element, FlowsStep, GROUP, ObservedFlows, ObservedRules, Rules, Set,
};
use program::NFT_TIMEOUT;
use skeleton::{Elements, Skeleton, dump_elements};
use socket::{Batch, Committed, Generation, NftSocket};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::OnceCell;

const RULES_TEXT: &str = include_str!("skeleton.nft");
const FLOWS_TEXT: &str = include_str!("flows.nft");
const RULES_TABLE: &str = "collective";
const FLOWS_TABLE: &str = "collective_flows";
/// Tries to read everything between two commits of others.
const READS_MAX: usize = 16;

/// Why the rules cannot be read or changed. Nothing was changed: a batch is carried out whole or not at all.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// `nft` cannot be run.
    #[error("cannot run nft; install the package nftables")]
    Run(#[source] io::Error),
    /// `nft` does not end.
    #[error("nft did not end within {} s", NFT_TIMEOUT.as_secs())]
    Timeout,
    /// `nft` refused its text.
    #[error("nft refused: {0}")]
    Refused(String),
    /// There is no place to compile the chains in.
    #[error("cannot make a network namespace to compile the chains in; netd needs CAP_SYS_ADMIN")]
    Namespace(#[source] io::Error),
    /// The kernel refused.
    #[error("nftables refused to {what}")]
    Kernel {
        /// What it was asked.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others commit all the time.
    #[error("others change nftables without pause; it could not {0} in between")]
    Busy(&'static str),
    /// The answer has not what was asked for.
    #[error("nftables did not {0} in a way that netd knows")]
    Unreadable(&'static str),
}

/// What is in our tables.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub(crate) rules: ObservedRules,
    pub(crate) counters: BTreeMap<String, Counters>,
    pub(crate) used: BTreeMap<(Set, Element), Counter>,
    pub(crate) flows: ObservedFlows,
}

/// Hold of our tables in one network namespace.
#[derive(Debug)]
pub(crate) struct Tables {
    state: Arc<Mutex<State>>,
    layouts: Arc<Layouts>,
}

#[derive(Debug)]
struct State {
    socket: NftSocket,
    /// The generation of which all of our tables is known: nobody has committed anything since.
    known: Option<Generation>,
}

#[derive(Debug)]
struct Compiled {
    rules: Skeleton,
    flows: Skeleton,
}

impl State {
    /// What was known before stays known, with what this changed.
    fn committed(&mut self, Committed { from, to }: Committed) {
        self.known = self.known.filter(|known| *known == from).map(|_| to);
    }

    fn commit(&mut self, batch: Batch, what: &'static str) -> Result<(), NftError> {
        if batch.is_empty() {
            return Ok(());
        }
        let committed = self.socket.commit(batch, what).inspect_err(|_| self.known = None)?;
        self.committed(committed);
        Ok(())
    }
}

impl Tables {
    /// In the network namespace of the calling thread.
    pub(crate) fn open() -> io::Result<Self> {
        let state = State { socket: NftSocket::open()?, known: None };
        Ok(Self { state: Arc::new(Mutex::new(state)), layouts: Arc::new(Layouts::new()) })
    }

    pub(crate) async fn observe(&self) -> Result<Listing, NftError> {
        let compiled = compiled().await?;
        let layouts = Arc::clone(&self.layouts);
        self.blocking(move |state| {
            for _ in 0..READS_MAX {
                let before = state.socket.generation()?;
                let listing = read(&mut state.socket, &layouts, &compiled)?;
                if state.socket.generation()? == before {
                    state.known = Some(before);
                    return Ok(listing);
                }
            }
            Err(NftError::Busy("list the rules"))
        })
        .await
    }

    /// Puts the table in place of whatever is there, whole.
    pub(crate) async fn replace(
        &self,
        rules: &Rules,
        counters: &BTreeMap<String, Counters>,
        used: &BTreeMap<(Set, Element), Counter>,
    ) -> Result<(), NftError> {
        let compiled = compiled().await?;
        let mut batch = Batch::default();
        compiled.rules.write(&mut batch, RULES_TABLE);
        self.write(&mut batch, kind::NEW_ELEMENTS, &rules.elements, |entry| match entry {
            (set, Element::Link(link)) if Set::COUNTING.contains(set) => {
                counters.get(link).map(|counters| counters.of(*set))
            }
            entry => used.get(entry).copied(),
        });
        self.blocking(move |state| state.commit(batch, "replace the rules")).await
    }

    pub(crate) async fn amend(
        &self,
        remove: &BTreeSet<(Set, Element)>,
        add: &BTreeSet<(Set, Element)>,
    ) -> Result<(), NftError> {
        let mut batch = Batch::default();
        self.write(&mut batch, kind::DELETE_ELEMENTS, remove, |_| None);
        self.write(&mut batch, kind::NEW_ELEMENTS, add, |_| None);
        self.blocking(move |state| state.commit(batch, "change the rules' elements")).await
    }

    pub(crate) async fn remove(&self) -> Result<(), NftError> {
        let mut batch = Batch::default();
        Skeleton::remove(&mut batch, RULES_TABLE);
        self.blocking(move |state| state.commit(batch, "remove the rules")).await
    }

    pub(crate) async fn change_flows(&self, step: &FlowsStep) -> Result<(), NftError> {
        let compiled = compiled().await?;
        let mut batch = Batch::default();
        match step {
            FlowsStep::Replace { taps } => {
                compiled.flows.write(&mut batch, FLOWS_TABLE);
                flows::write(&mut batch, kind::NEW_ELEMENTS, FLOWS_TABLE, taps);
            }
            FlowsStep::Amend { remove, add } => {
                flows::write(&mut batch, kind::DELETE_ELEMENTS, FLOWS_TABLE, remove);
                flows::write(&mut batch, kind::NEW_ELEMENTS, FLOWS_TABLE, add);
            }
            FlowsStep::Remove => Skeleton::remove(&mut batch, FLOWS_TABLE),
        }
        self.blocking(move |state| state.commit(batch, "change which conversations are counted")).await
    }

    pub(crate) async fn conversations(&self) -> Result<Vec<Conversation>, NftError> {
        self.blocking(|state| flows::conversations(&mut state.socket, FLOWS_TABLE)).await
    }

    /// The generation of which everything of ours is known.
    pub(crate) fn known(&self) -> Option<Generation> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).known
    }

    pub(crate) async fn generation(&self) -> Result<Generation, NftError> {
        self.blocking(|state| state.socket.generation()).await
    }

    fn write(
        &self,
        batch: &mut Batch,
        kind: u16,
        elements: &BTreeSet<(Set, Element)>,
        counter: impl Fn(&(Set, Element)) -> Option<Counter>,
    ) {
        for (layout, members) in self.layouts.sort(elements) {
            let mut list = Elements::new(batch, kind, RULES_TABLE, &layout.name);
            for entry in members {
                list.push(|message| elements::write(message, &entry.1, counter(entry)));
            }
            list.end();
        }
    }

    /// On a thread that may take its time: a large host's rules are a tenth of a second of the kernel's work.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut State) -> Result<T, NftError> + Send + 'static,
    ) -> Result<T, NftError> {
        let state = Arc::clone(&self.state);
        let work = move || work(&mut state.lock().unwrap_or_else(PoisonError::into_inner));
        tokio::task::spawn_blocking(work).await.unwrap_or(Err(NftError::Unreadable("answer")))
    }
}

/// Made when first needed, and once: it is the same in every namespace.
async fn compiled() -> Result<Arc<Compiled>, NftError> {
    static COMPILED: OnceCell<Arc<Compiled>> = OnceCell::const_new();
    let compile = || async {
        let text = format!("{}\n{FLOWS_TEXT}", rules_text());
        let [rules, flows] = skeleton::compile(text, [RULES_TABLE, FLOWS_TABLE]).await?;
        Ok(Arc::new(Compiled { rules, flows }))
    };
    COMPILED.get_or_try_init(compile).await.cloned()
}

fn read(socket: &mut NftSocket, layouts: &Layouts, compiled: &Compiled) -> Result<Listing, NftError> {
    let mut listing = Listing::default();
    if let Some(found) = Skeleton::read(socket, RULES_TABLE)? {
        let elements = read_rules(socket, layouts, &mut listing)?;
        listing.rules = match elements {
            Some(elements) if found == compiled.rules => ObservedRules::Intact(Rules { elements }),
            _ => ObservedRules::Altered,
        };
    }
    if let Some(found) = Skeleton::read(socket, FLOWS_TABLE)? {
        let taps = flows::observed(socket, FLOWS_TABLE)?;
        listing.flows = match taps {
            Some(taps) if found == compiled.flows => ObservedFlows::Intact(taps),
            _ => ObservedFlows::Altered,
        };
    }
    Ok(listing)
}

/// None if there are elements that netd does not write; the counters are of those that it does.
fn read_rules(
    socket: &mut NftSocket,
    layouts: &Layouts,
    listing: &mut Listing,
) -> Result<Option<BTreeSet<(Set, Element)>>, NftError> {
    type Found = (Vec<(u128, Element, Option<Counter>)>, bool);
    let mut all = Vec::new();
    let mut intact = true;
    let mut gate_leads_on = false;
    for layout in layouts.iter() {
        // No packet is looked up there. Two sets of three are such rungs on most hosts, and the longer reading takes the
        // more often others commit meanwhile.
        if layout.is_rung() && !gate_leads_on {
            continue;
        }
        let (mut found, strange) =
            dump_elements(socket, RULES_TABLE, &layout.name, |(found, strange): &mut Found, element| {
                match elements::read(layout, element) {
                    Some((order, read)) => found.push((order, read, elements::read_counter(element))),
                    None => *strange = true,
                }
            })?;
        intact &= !strange;
        if layout.is_gate() {
            gate_leads_on = strange || !found.is_empty();
        }
        // The kernel has no order; to compare numbers first is what makes this quick.
        found.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| a.1.cmp(&b.1)));
        for (_, element, counter) in found {
            match (&element, counter) {
                (Element::Link(link), Some(counter)) if Set::COUNTING.contains(&layout.set) => {
                    match listing.counters.get_mut(link) {
                        Some(counters) => counters.set(layout.set, counter),
                        None => {
                            listing.counters.entry(link.clone()).or_default().set(layout.set, counter);
                        }
                    }
                }
                (_, Some(counter)) if counter.frames != 0 => {
                    listing.used.insert((layout.set, element.clone()), counter);
                }
                _ => {}
            }
            all.push((layout.set, element));
        }
    }
    Ok(intact.then(|| all.into_iter().collect()))
}

fn rules_text() -> String {
    RULES_TEXT.replace("GROUP", &format!("{GROUP:#010x}")).replace("  LADDERS\n", &ladder::lines())
}

/// The whole table as `nft -f -` would take it, for those who look at what a document can make of it.
#[must_use]
pub fn render(rules: &Rules) -> String {
    let mut text = rules_text();
    let layouts = Layouts::new();
    for (layout, members) in layouts.sort(&rules.elements) {
        let words: Vec<String> = members.iter().map(|entry| elements::words(&entry.1)).collect();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "add element bridge {RULES_TABLE} {} {{ {} }}", layout.name, words.join(", "));
    }
    text
}
