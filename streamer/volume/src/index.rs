//! Which images hold which bytes: an index from a piece's SHA-256 to everywhere in the cache.
//!
//! It keeps eight bytes of each digest. That is a hint, no more: whoever copies a piece verifies the copy.

use crate::data::Data;
use crate::have::Have;
use crate::image::Image;
use crate::settings::Settings;
use crate::volume::{Place, States};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use streamer_plan::{Geometry, Pieces};
use types::Digest;

/// One piece of one image. Ordered by what is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    /// The first bytes of its SHA-256.
    prefix: u64,
    member: u32,
    piece: u32,
}

/// Somebody who has a piece.
#[derive(Debug)]
pub(crate) struct Lender {
    pub(crate) data: Arc<Data>,
    /// Offset of the piece there.
    pub(crate) at: u64,
}

#[derive(Debug)]
struct Member {
    digest: Digest,
    geometry: Geometry,
    folder: PathBuf,
    holding: Holding,
}

/// What a member has.
#[derive(Debug)]
enum Holding {
    /// It is open.
    Open(Weak<States>, Weak<Data>),
    /// It is not: what its map says.
    Idle(Pieces),
}

#[derive(Debug, Default)]
struct Content {
    entries: BTreeSet<Entry>,
    members: BTreeMap<u32, Member>,
    numbers: HashMap<Digest, u32>,
    next: u32,
}

/// The index of one cache.
#[derive(Debug, Default)]
pub(crate) struct Index(Mutex<Content>);

impl Index {
    /// Is the image in it?
    pub(crate) fn knows(&self, digest: Digest) -> bool {
        self.lock().numbers.contains_key(&digest)
    }

    /// Adds an image that is in the cache but not open. One that cannot be read has nothing to lend.
    pub(crate) fn add_idle(&self, digest: Digest, folder: &Path) {
        let image = Settings::read(folder).ok().and_then(|settings| {
            let source = &settings.source;
            let any = crate::Privacy::Any;
            Image::parse(&source.metainfo.0, &source.manifest.0, Some(digest), any).ok()
        });
        if let Some(image) = image {
            let holding = Holding::Idle(held(folder, image.geometry));
            self.lock().add(&image, folder, holding);
        }
    }

    /// Adds an image that is being opened.
    pub(crate) fn add_open(&self, image: &Image, folder: &Path, states: &Arc<States>, data: &Arc<Data>) {
        let holding = Holding::Open(Arc::downgrade(states), Arc::downgrade(data));
        let mut content = self.lock();
        match content.numbers.get(&image.digest).copied() {
            Some(number) => {
                if let Some(member) = content.members.get_mut(&number) {
                    member.holding = holding;
                }
            }
            None => content.add(image, folder, holding),
        }
    }

    /// The image is in the cache no longer.
    pub(crate) fn remove(&self, digest: Digest) {
        let mut content = self.lock();
        if let Some(number) = content.numbers.remove(&digest) {
            content.members.remove(&number);
            content.entries.retain(|entry| entry.member != number);
        }
    }

    /// Where the bytes of a piece can be copied from.
    pub(crate) fn lenders(&self, image: &Image, piece: u32) -> Vec<Lender> {
        let mut content = self.lock();
        let found: Vec<Entry> = content.same(image, piece).collect();
        found.into_iter().filter_map(|entry| content.lender(entry)).collect()
    }

    /// Of the absent pieces of an open image, those that somebody has.
    pub(crate) fn lendable(&self, image: &Image, states: &States) -> Vec<u32> {
        let mut content = self.lock();
        content.members.values_mut().for_each(Member::wake_idle);
        let own = content.numbers.get(&image.digest).copied();
        let here = |place: Place| move |piece: &u32| states.get(*piece) == place;
        let all = || 0..image.geometry.pieces();
        let alone = content.members.iter().all(|(number, member)| Some(*number) == own || member.is_empty());
        if !alone {
            return all()
                .filter(here(Place::Absent))
                .filter(|piece| content.same(image, *piece).any(|entry| content.has(entry)))
                .collect();
        }
        // Only its own: what is here is looked up, which is little when an image is new.
        let has = |piece: &u32| here(Place::Held)(piece) || here(Place::Claimed)(piece);
        let twins = all().filter(has).flat_map(|piece| content.same(image, piece));
        twins.map(|entry| entry.piece).filter(here(Place::Absent)).collect()
    }

    /// Other pieces of the same image with the same bytes.
    pub(crate) fn twins(&self, image: &Image, piece: u32) -> Vec<u32> {
        let content = self.lock();
        let own = content.numbers.get(&image.digest).copied();
        content
            .same(image, piece)
            .filter(|entry| Some(entry.member) == own)
            .map(|entry| entry.piece)
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Content> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Content {
    fn add(&mut self, image: &Image, folder: &Path, holding: Holding) {
        let number = self.next;
        self.next += 1;
        let geometry = image.geometry;
        let entry = |piece| Entry { prefix: prefix(image, piece), member: number, piece };
        let mut entries: BTreeSet<Entry> =
            (0..geometry.pieces()).filter(|piece| !image.zero.contains(*piece)).map(entry).collect();
        if entries.len() > self.entries.len() / 16 {
            // Merging takes as long as both are together.
            self.entries.append(&mut entries);
        } else {
            self.entries.extend(entries);
        }
        self.members
            .insert(number, Member { digest: image.digest, geometry, folder: folder.to_owned(), holding });
        self.numbers.insert(image.digest, number);
    }

    /// Pieces that have the same bytes, but for the piece itself, whether they are here or not.
    fn same(&self, image: &Image, piece: u32) -> impl Iterator<Item = Entry> + '_ {
        let prefix = prefix(image, piece);
        let length = image.geometry.length(piece);
        let own = self.numbers.get(&image.digest).copied();
        let first = Entry { prefix, member: 0, piece: 0 };
        let last = Entry { prefix, member: u32::MAX, piece: u32::MAX };
        self.entries.range(first..=last).copied().filter(move |entry| {
            (Some(entry.member), entry.piece) != (own, piece)
                && self.members.get(&entry.member).map(|member| member.geometry.length(entry.piece))
                    == Some(length)
        })
    }

    fn has(&self, entry: Entry) -> bool {
        self.members.get(&entry.member).is_some_and(|member| member.has(entry.piece))
    }

    fn lender(&mut self, entry: Entry) -> Option<Lender> {
        let member = self.members.get_mut(&entry.member)?;
        member.wake_idle();
        if !member.has(entry.piece) {
            return None;
        }
        let at = member.geometry.offset(entry.piece);
        let data = match &member.holding {
            Holding::Open(_, data) => data.upgrade()?,
            Holding::Idle(_) => Arc::new(Data::open_to_read(&member.folder.join("data")).ok()?),
        };
        Some(Lender { data, at })
    }
}

impl Member {
    /// One that was open and is no longer has what its map says.
    fn wake_idle(&mut self) {
        if matches!(&self.holding, Holding::Open(states, _) if states.strong_count() == 0) {
            tracing::trace!(image = %self.digest.short(), "closed");
            self.holding = Holding::Idle(held(&self.folder, self.geometry));
        }
    }

    fn has(&self, piece: u32) -> bool {
        match &self.holding {
            Holding::Idle(held) => held.contains(piece),
            Holding::Open(states, _) => states
                .upgrade()
                .is_some_and(|states| matches!(states.get(piece), Place::Held | Place::Claimed)),
        }
    }

    fn is_empty(&self) -> bool {
        match &self.holding {
            Holding::Idle(held) => held.count() == 0,
            Holding::Open(states, _) => states
                .upgrade()
                .is_none_or(|states| states.count(Place::Held) + states.count(Place::Claimed) == 0),
        }
    }
}

fn held(folder: &Path, geometry: Geometry) -> Pieces {
    let have = Have::load(&folder.join("have"), geometry.pieces()).ok().flatten();
    have.map_or_else(|| Pieces::none(geometry.pieces()), |have| have.held)
}

fn prefix(image: &Image, piece: u32) -> u64 {
    let digest = image.sha256_of(piece).unwrap_or_default();
    digest.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}
