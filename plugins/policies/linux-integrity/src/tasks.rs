//! Three views of the processes of a kernel, which must agree: the list that the kernel itself walks, the table of
//! process numbers that `/proc` is made from, and the tree of parents and children.

use crate::kernel::{Kernel, NotFound};
use crate::kernel_memory::{KernelMemory, u32_at, u64_at};
use plugins_sdk::introspection::{Guest, ViewError};
use std::collections::{BTreeMap, BTreeSet};

/// What must be known of the kernel's structures.
pub(crate) const MEMBERS: [(&str, &str); 16] = [
    ("task_struct", "tasks"),
    ("task_struct", "pid"),
    ("task_struct", "tgid"),
    ("task_struct", "comm"),
    ("task_struct", "children"),
    ("task_struct", "sibling"),
    ("task_struct", "exit_state"),
    ("task_struct", "signal"),
    ("task_struct", "thread_node"),
    ("task_struct", "pid_links"),
    ("signal_struct", "thread_head"),
    ("pid", "tasks"),
    ("pid_namespace", "idr"),
    ("idr", "idr_rt"),
    ("xarray", "xa_head"),
    ("xa_node", "slots"),
];

const COMM_LEN: u64 = 16;
/// `PIDTYPE_TGID`: what `/proc` lists.
const TYPE_PROCESS: u64 = 1;
/// Bytes of a list's head and of one of its nodes.
const HEAD_LEN: u64 = 8;
const NODE_LEN: u64 = 16;
/// Entries of a node of the table.
const SLOTS: usize = 64;
/// The table of 2^22 process numbers has four levels of nodes.
const TABLE_LEVELS_MAX: usize = 5;
/// Reads in one look: the runtime allows a call only so many.
const READS_MAX: u32 = 6_000;

/// One process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    /// Its `task_struct`.
    pub(crate) address: u64,
    pub(crate) pid: u32,
    pub(crate) name: String,
}

/// A process that one view shows and another does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hidden {
    pub(crate) process: Process,
    pub(crate) missing: Vec<&'static str>,
    pub(crate) shown: Vec<&'static str>,
}

pub(crate) const LIST: &str = "the list of tasks";
pub(crate) const TABLE: &str = "the table of process numbers";
pub(crate) const TREE: &str = "the tree of children";

/// What the three views show.
#[derive(Debug, Default)]
pub(crate) struct Views {
    list: BTreeSet<u64>,
    table: BTreeSet<u64>,
    tree: BTreeSet<u64>,
    processes: BTreeMap<u64, Process>,
}

impl Views {
    /// Processes that live and that not all views show.
    pub(crate) fn hidden(&self) -> Vec<Hidden> {
        let views = [(LIST, &self.list), (TABLE, &self.table), (TREE, &self.tree)];
        let named = |address: &u64, there: bool| {
            views.iter().filter(|(_, view)| view.contains(address) == there).map(|(name, _)| *name).collect()
        };
        self.processes
            .iter()
            .map(|(address, process)| Hidden {
                process: process.clone(),
                missing: named(address, false),
                shown: named(address, true),
            })
            .filter(|hidden| !hidden.missing.is_empty())
            .collect()
    }

    pub(crate) fn count(&self) -> usize {
        self.processes.len()
    }
}

/// Reads the three views. The guest may run meanwhile: what differs once may be a process on its way.
pub(crate) fn look(guest: &impl Guest, kernel: &Kernel) -> Result<Views, NotFound> {
    let mut look =
        Look { memory: kernel.memory(guest), shape: Shape::of(kernel)?, tasks: BTreeMap::new(), reads: 0 };
    let init = kernel.symbol("init_task")?;
    let list = look.list(init)?;
    let table = look.table(kernel.symbol("init_pid_ns")?)?;
    let tree = look.tree(init)?;
    let mut views = Views { list, table, tree, processes: BTreeMap::new() };
    for (address, task) in look.tasks {
        let shown = [&views.list, &views.table, &views.tree].iter().any(|view| view.contains(&address));
        if shown && address != init && task.exit_state == 0 && task.pid == task.tgid {
            views.processes.insert(address, Process { address, pid: task.pid, name: task.name });
        }
    }
    Ok(views)
}

/// Offsets of members.
struct Shape {
    tasks: u64,
    pid: u64,
    tgid: u64,
    comm: u64,
    children: u64,
    sibling: u64,
    exit_state: u64,
    signal: u64,
    thread_node: u64,
    pid_links: u64,
    thread_head: u64,
    pid_tasks: u64,
    idr_head: u64,
    node_slots: u64,
}

impl Shape {
    fn of(kernel: &Kernel) -> Result<Self, NotFound> {
        let at = |name: &str| kernel.offset(name);
        Ok(Self {
            tasks: at("task_struct.tasks")?,
            pid: at("task_struct.pid")?,
            tgid: at("task_struct.tgid")?,
            comm: at("task_struct.comm")?,
            children: at("task_struct.children")?,
            sibling: at("task_struct.sibling")?,
            exit_state: at("task_struct.exit_state")?,
            signal: at("task_struct.signal")?,
            thread_node: at("task_struct.thread_node")?,
            pid_links: at("task_struct.pid_links")?,
            thread_head: at("signal_struct.thread_head")?,
            pid_tasks: at("pid.tasks")?,
            idr_head: at("pid_namespace.idr")? + at("idr.idr_rt")? + at("xarray.xa_head")?,
            node_slots: at("xa_node.slots")?,
        })
    }

    /// First and behind the last byte of a task that is of interest.
    fn span(&self) -> (u64, u64) {
        let all = [
            self.tasks,
            self.pid,
            self.tgid,
            self.children,
            self.sibling,
            self.exit_state,
            self.signal,
            self.thread_node,
        ];
        let first = all.iter().copied().chain([self.comm]).min().unwrap_or(0);
        let last = all.iter().map(|offset| offset + NODE_LEN).chain([self.comm + COMM_LEN]).max();
        (first, last.unwrap_or(0))
    }
}

/// What is known of one task.
#[derive(Debug, Clone)]
struct Task {
    pid: u32,
    tgid: u32,
    exit_state: u32,
    name: String,
    next: u64,
    child: u64,
    sibling: u64,
    signal: u64,
    next_thread: u64,
}

struct Look<'a, G> {
    memory: KernelMemory<'a, G>,
    shape: Shape,
    tasks: BTreeMap<u64, Task>,
    reads: u32,
}

impl<G: Guest> Look<'_, G> {
    fn list(&mut self, init: u64) -> Result<BTreeSet<u64>, NotFound> {
        let mut found = BTreeSet::new();
        let mut at = self.task(init)?.next.wrapping_sub(self.shape.tasks);
        while at != init && found.insert(at) {
            at = self.task(at)?.next.wrapping_sub(self.shape.tasks);
        }
        Ok(found)
    }

    fn table(&mut self, namespace: u64) -> Result<BTreeSet<u64>, NotFound> {
        let head = self.number(namespace + self.shape.idr_head)?;
        let mut found = BTreeSet::new();
        self.node(head, 0, &mut found)?;
        Ok(found)
    }

    fn node(&mut self, entry: u64, level: usize, found: &mut BTreeSet<u64>) -> Result<(), NotFound> {
        // The two lowest bits tell a node from what the table holds.
        if entry & 3 != 2 || entry < 4096 {
            return if entry & 3 == 0 && entry != 0 { self.process(entry, found) } else { Ok(()) };
        }
        if level == TABLE_LEVELS_MAX {
            return Ok(());
        }
        let node = entry & !3;
        let slots = self.bytes(node + self.shape.node_slots, SLOTS * 8)?;
        for slot in (0..SLOTS).filter_map(|slot| u64_at(&slots, slot * 8)) {
            self.node(slot, level + 1, found)?;
        }
        Ok(())
    }

    /// The process of a number, if it is the number of one.
    fn process(&mut self, pid: u64, found: &mut BTreeSet<u64>) -> Result<(), NotFound> {
        let first = self.number(pid + self.shape.pid_tasks + TYPE_PROCESS * HEAD_LEN)?;
        if first != 0 {
            let task = first.wrapping_sub(self.shape.pid_links + TYPE_PROCESS * NODE_LEN);
            self.task(task)?;
            found.insert(task);
        }
        Ok(())
    }

    /// Children of every thread, from the first task on.
    fn tree(&mut self, init: u64) -> Result<BTreeSet<u64>, NotFound> {
        let (mut found, mut open, mut threads) = (BTreeSet::new(), vec![init], BTreeSet::new());
        while let Some(parent) = open.pop() {
            for thread in self.threads(parent)? {
                if !threads.insert(thread) {
                    continue;
                }
                let end = thread.wrapping_add(self.shape.children);
                let mut link = self.task(thread)?.child;
                while link != end {
                    let child = link.wrapping_sub(self.shape.sibling);
                    if !found.insert(child) {
                        break;
                    }
                    open.push(child);
                    link = self.task(child)?.sibling;
                }
            }
        }
        Ok(found)
    }

    /// All threads of a process, itself as well.
    fn threads(&mut self, leader: u64) -> Result<BTreeSet<u64>, NotFound> {
        let mut found = BTreeSet::from([leader]);
        let task = self.task(leader)?;
        let head = task.signal.wrapping_add(self.shape.thread_head);
        let mut link = task.next_thread;
        while link != head {
            let thread = link.wrapping_sub(self.shape.thread_node);
            if thread != leader && !found.insert(thread) {
                break;
            }
            link = self.task(thread)?.next_thread;
            if link == leader.wrapping_add(self.shape.thread_node) {
                break;
            }
        }
        Ok(found)
    }

    fn task(&mut self, address: u64) -> Result<Task, NotFound> {
        if let Some(task) = self.tasks.get(&address) {
            return Ok(task.clone());
        }
        let (from, to) = self.shape.span();
        let bytes = self.bytes(address.wrapping_add(from), (to - from) as usize)?;
        let place = |offset: u64| (offset - from) as usize;
        let long = |offset: u64| u64_at(&bytes, place(offset)).unwrap_or(0);
        let short = |offset: u64| u32_at(&bytes, place(offset)).unwrap_or(0);
        let name = bytes.get(place(self.shape.comm)..).unwrap_or_default().iter();
        let name: Vec<u8> = name.copied().take(COMM_LEN as usize).take_while(|byte| *byte != 0).collect();
        let task = Task {
            pid: short(self.shape.pid),
            tgid: short(self.shape.tgid),
            exit_state: short(self.shape.exit_state),
            name: String::from_utf8_lossy(&name).into_owned(),
            next: long(self.shape.tasks),
            child: long(self.shape.children),
            sibling: long(self.shape.sibling),
            signal: long(self.shape.signal),
            next_thread: long(self.shape.thread_node),
        };
        self.tasks.insert(address, task.clone());
        Ok(task)
    }

    fn number(&mut self, address: u64) -> Result<u64, NotFound> {
        Ok(u64_at(&self.bytes(address, 8)?, 0).unwrap_or(0))
    }

    fn bytes(&mut self, address: u64, len: usize) -> Result<Vec<u8>, NotFound> {
        self.reads += 1;
        if self.reads > READS_MAX {
            return Err(NotFound::Missing(format!("more processes than {READS_MAX} reads show")));
        }
        self.memory.bytes(address, len).map_err(|error| match error {
            // A list of a running guest may lead into memory that is no longer what it was.
            ViewError::NotMapped | ViewError::OutOfRange => NotFound::Torn,
            other => NotFound::View(other),
        })
    }
}
