//! An agent's disks beside its own, and which of them the volumes of an instance get. Pure.
//!
//! Marathon's rules. A `path` volume takes a part of a disk, of the one with the most room. A `mount` volume takes a whole disk and
//! is its only one: the smallest that is large enough, and no larger than it allows. A profile must be the disk's, and who asks for
//! none gets no disk that has one. What a volume says of the path must match the whole of the disk's root.
//!
//! Where volumes compete for disks they are tried together, so that what fits is placed.

use std::{cell::Cell, cmp::Reverse, collections::HashMap};

use podium_proto::mesos::v1::{self, resource::disk_info::source};
use podium_proto::wire::amounts::{scalar, thousandths};
use podium_proto::wire::resources;
use podium_types::definition::{PersistentKind, PersistentVolume};
use regex::Regex;

use super::candidate::volume_size;
use super::constraint::pattern;

/// Tries on one agent for the volumes of one instance. Seven that compete for the same disks need fewer; where more do and none
/// of so many tries has found a place for all, the agent counts as too full.
const MOST_TRIES: usize = 2_000;
/// Tries of one pass beyond the one a volume that every search has, on all agents and for all pods together.
const MOST_OF_PASS: usize = 50_000;

/// What is left of a pass for searches that do not go straight to their end: the master's next word waits for it. When it is used
/// up, an agent whose best disks are not the right ones counts as too full.
#[derive(Debug)]
pub(super) struct Tries(Cell<usize>);

impl Tries {
    /// Those of one pass.
    pub fn of_pass() -> Self {
        Tries(Cell::new(MOST_OF_PASS))
    }

    fn for_one(&self, wishes: usize) -> usize {
        self.0.get().min(MOST_TRIES).saturating_add(wishes)
    }

    fn used(&self, wishes: usize, tries: usize) {
        self.0.set(self.0.get().saturating_sub(tries.saturating_sub(wishes)));
    }
}

/// One disk of the type `path` or `mount`, and how much of it is left.
#[derive(Debug, Clone)]
pub(super) struct Disk {
    /// As offered, without a value.
    account: v1::Resource,
    kind: PersistentKind,
    /// Thousandths; of a mount all or nothing.
    left: i64,
}

impl Disk {
    /// None if it is something else, or not there to be reserved.
    pub fn of(resource: &v1::Resource) -> Option<Self> {
        let disk = resource.disk.as_ref().filter(|disk| disk.persistence.is_none())?;
        let kind = match source::Type::try_from(disk.source.as_ref()?.r#type).ok()? {
            source::Type::Path => PersistentKind::Path,
            source::Type::Mount => PersistentKind::Mount,
            source::Type::Unknown | source::Type::Block | source::Type::Raw => return None,
        };
        let plain = resource.revocable.is_none() && resource.shared.is_none() && resource.provider_id.is_none();
        let left = thousandths(resource.scalar.as_ref().filter(|_| plain && !resources::is_reserved(resource))?.value);
        Some(Disk { account: v1::Resource { scalar: None, ..resource.clone() }, kind, left })
    }

    /// Adds more of the same disk, of another offer.
    pub fn merge_into(self, disks: &mut Vec<Disk>) {
        let parts = self.kind == PersistentKind::Path;
        match disks.iter_mut().find(|have| parts && resources::same_account(&have.account, &self.account)) {
            Some(have) => have.left = have.left.saturating_add(self.left),
            None => disks.push(self),
        }
    }

    fn source(&self) -> Option<&v1::resource::disk_info::Source> {
        self.account.disk.as_ref()?.source.as_ref()
    }

    fn root(&self) -> &str {
        let root = self.source().and_then(|source| match self.kind {
            PersistentKind::Path => source.path.as_ref()?.root.as_deref(),
            PersistentKind::Mount => source.mount.as_ref()?.root.as_deref(),
            PersistentKind::Root => None,
        });
        root.unwrap_or_default()
    }

    fn profile(&self) -> Option<&str> {
        self.source()?.profile.as_deref().filter(|profile| !profile.is_empty())
    }
}

/// What a volume of the type `path` or `mount` wants.
pub(super) struct Wish<'a> {
    volume: &'a PersistentVolume,
    size: i64,
    /// What the disk's root must match; none: a pattern that cannot be read, which nothing matches.
    paths: Vec<Option<Regex>>,
}

impl<'a> Wish<'a> {
    /// None of a volume on the agent's own disk.
    pub fn of(volume: &'a PersistentVolume) -> Option<Self> {
        let wish = || Wish { volume, size: volume_size(volume), paths: paths(volume) };
        (volume.kind != PersistentKind::Root).then(wish)
    }

    fn is_mount(&self) -> bool {
        self.volume.kind == PersistentKind::Mount
    }

    /// Whether the disk is one for it, whatever is left of it.
    fn suits(&self, disk: &Disk) -> bool {
        disk.kind == self.volume.kind && disk.profile() == self.volume.profile_name.as_deref() && match_all(&self.paths, disk.root())
    }

    /// Whether it can have its share of a disk of which so much is left.
    fn fits(&self, left: i64) -> bool {
        let most = self.volume.max_size.filter(|_| self.is_mount());
        let most = most.map_or(i64::MAX, |most| i64::try_from(most).unwrap_or(i64::MAX).saturating_mul(1000));
        (self.size..=most).contains(&left)
    }

    /// What it takes of a disk of which so much is left.
    fn share(&self, left: i64) -> i64 {
        if self.is_mount() { left } else { self.size }
    }
}

fn paths(volume: &PersistentVolume) -> Vec<Option<Regex>> {
    volume.path_like.iter().map(|like| pattern(Some(like))).collect()
}

fn match_all(paths: &[Option<Regex>], root: &str) -> bool {
    paths.iter().all(|path| path.as_ref().is_some_and(|path| path.is_match(root)))
}

/// Whether the agent's own disk, which has no path of its own, is one for the volume.
pub(crate) fn admits_no_path(volume: &PersistentVolume) -> bool {
    match_all(&paths(volume), "")
}

/// Whether there is a disk for each.
pub(super) fn fit(disks: &[Disk], wishes: &[Wish<'_>], tries: &Tries) -> bool {
    if wishes.is_empty() {
        return true;
    }
    let granted = tries.for_one(wishes.len());
    let Some(mut search) = Search::new(disks, wishes, granted) else { return false };
    let found = search.settle(0);
    tries.used(wishes.len(), granted - search.tries);
    found
}

/// Takes what each wants, in their order, where they [`fit`].
pub(super) fn take(disks: &mut [Disk], wishes: &[Wish<'_>]) -> Option<Vec<v1::Resource>> {
    if wishes.is_empty() {
        return Some(Vec::new());
    }
    let mut search = Search::new(disks, wishes, MOST_TRIES.saturating_add(wishes.len()))?;
    let chosen = search.settle(0).then_some(search.chosen)?;
    let pieces = wishes.iter().zip(chosen).map(|(wish, at)| {
        let disk = disks.get_mut(at)?;
        let part = wish.share(disk.left);
        disk.left -= part;
        Some(v1::Resource { scalar: Some(scalar(part)), ..disk.account.clone() })
    });
    pieces.collect()
}

/// Looks for a disk for each wish, the hardest to please first.
struct Search<'a> {
    disks: &'a [Disk],
    wishes: &'a [Wish<'a>],
    /// Indices of wishes, in the order in which they are tried.
    order: Vec<usize>,
    /// Of each wish, the disks that suit it.
    suited: Vec<Vec<usize>>,
    /// Of each disk, the first that suits the same wishes.
    alike: Vec<usize>,
    /// Of each disk, what the wishes before leave.
    left: Vec<i64>,
    /// Of each wish.
    chosen: Vec<usize>,
    tries: usize,
}

impl<'a> Search<'a> {
    /// None where counting tells that there is none.
    fn new(disks: &'a [Disk], wishes: &'a [Wish<'a>], tries: usize) -> Option<Self> {
        if is_too_much(disks, wishes) {
            return None;
        }
        let suited = |wish: &Wish<'_>| disks.iter().enumerate().filter(|(_, disk)| wish.suits(disk)).map(|(index, _)| index).collect();
        let suited: Vec<Vec<usize>> = wishes.iter().map(suited).collect();
        let mut search = Search {
            disks,
            wishes,
            order: Vec::new(),
            alike: alike(disks.len(), &suited),
            suited,
            left: disks.iter().map(|disk| disk.left).collect(),
            chosen: vec![0; wishes.len()],
            tries,
        };
        let mut order: Vec<_> =
            wishes.iter().enumerate().map(|(index, wish)| (search.open_to(index, wish).len(), Reverse(wish.size), index)).collect();
        order.sort_unstable();
        search.order = order.into_iter().map(|(_, _, index)| index).collect();
        Some(search)
    }

    /// The disks that would do now, the best first.
    fn open_to(&self, index: usize, wish: &Wish<'_>) -> Vec<usize> {
        let suited = self.suited.get(index).into_iter().flatten();
        let suited = suited.filter_map(|disk| Some((*disk, self.disks.get(*disk)?, *self.left.get(*disk)?)));
        let open = suited.filter(|(.., left)| wish.fits(*left));
        let mut open: Vec<_> =
            open.map(|(index, disk, left)| (if wish.is_mount() { left } else { left.saturating_neg() }, disk.root(), index)).collect();
        open.sort_unstable();
        open.into_iter().map(|(_, _, index)| index).collect()
    }

    /// Whether all wishes from this place in the order on can be granted.
    fn settle(&mut self, place: usize) -> bool {
        let Some((index, wish)) = self.order.get(place).and_then(|index| Some((*index, self.wishes.get(*index)?))) else { return true };
        let mut tried = Vec::new();
        for disk in self.open_to(index, wish) {
            let equal = (self.alike.get(disk).copied(), self.left.get(disk).copied());
            if tried.contains(&equal) {
                // What failed on one fails on its equal.
                continue;
            }
            tried.push(equal);
            let (Some(left), Some(chosen)) = (self.left.get_mut(disk), self.chosen.get_mut(index)) else { continue };
            if self.tries == 0 {
                return false;
            }
            self.tries -= 1;
            let before = *left;
            *left -= wish.share(before);
            *chosen = disk;
            if self.settle(place + 1) {
                return true;
            }
            if let Some(left) = self.left.get_mut(disk) {
                *left = before;
            }
        }
        false
    }
}

/// Of each disk, the first that suits the same wishes.
fn alike(disks: usize, suited: &[Vec<usize>]) -> Vec<usize> {
    let mut suits = vec![Vec::new(); disks];
    for (wish, suited) in suited.iter().enumerate() {
        for disk in suited {
            if let Some(suits) = suits.get_mut(*disk) {
                suits.push(wish);
            }
        }
    }
    let mut first = HashMap::new();
    suits.iter().enumerate().map(|(disk, suits)| *first.entry(suits).or_insert(disk)).collect()
}

/// More than there is, however it is shared out: in all, or of pieces of some size and above.
fn is_too_much(disks: &[Disk], wishes: &[Wish<'_>]) -> bool {
    let paths = disks.iter().filter(|disk| disk.kind == PersistentKind::Path);
    let room = paths.clone().fold(0i64, |sum, disk| sum.saturating_add(disk.left));
    let (mounts, parts): (Vec<&Wish<'_>>, Vec<&Wish<'_>>) = wishes.iter().partition(|wish| wish.is_mount());
    let wanted = parts.iter().fold(0i64, |sum, wish| sum.saturating_add(wish.size));
    wanted > room || mounts.len() > disks.len() - paths.clone().count() || is_too_many(paths, parts.iter().map(|wish| wish.size).collect())
}

/// Whether at some size there are more pieces, of it or larger, than disks can be cut into.
fn is_too_many<'a>(disks: impl Iterator<Item = &'a Disk> + Clone, mut sizes: Vec<i64>) -> bool {
    sizes.sort_unstable_by_key(|size| Reverse(*size));
    let mut pieces = 0;
    for equal in sizes.chunk_by(|one, next| one == next) {
        pieces += equal.len();
        let size = equal.first().map_or(1, |size| (*size).max(1));
        let places = disks.clone().fold(0i64, |sum, disk| sum.saturating_add(disk.left / size));
        if usize::try_from(places).is_ok_and(|places| places < pieces) {
            return true;
        }
    }
    false
}

#[cfg(test)]
pub(super) mod tests {
    use podium_proto::mesos::v1::resource::DiskInfo;
    use podium_proto::mesos::v1::resource::disk_info::Source;
    use podium_proto::wire::resources::scalar_entry;

    use super::*;

    /// An offered disk; its size in MiB.
    pub(crate) fn offered(kind: PersistentKind, root: &str, size: i64, profile: Option<&str>) -> v1::Resource {
        let root = Some(root.to_owned());
        let mut source = Source { profile: profile.map(str::to_owned), ..Source::default() };
        if kind == PersistentKind::Path {
            source.r#type = source::Type::Path.into();
            source.path = Some(source::Path { root });
        } else {
            source.r#type = source::Type::Mount.into();
            source.mount = Some(source::Mount { root });
        }
        let disk = DiskInfo { source: Some(source), ..DiskInfo::default() };
        v1::Resource { disk: Some(disk), ..scalar_entry("disk", size * 1000) }
    }

    fn volume(kind: PersistentKind, size: u64) -> PersistentVolume {
        PersistentVolume { kind, size, max_size: None, profile_name: None, path_like: Vec::new() }
    }

    /// The roots and sizes that the volumes get.
    fn taken(resources: &[v1::Resource], volumes: &[PersistentVolume]) -> Option<Vec<(String, i64)>> {
        let mut disks = Vec::new();
        resources.iter().filter_map(Disk::of).for_each(|disk| disk.merge_into(&mut disks));
        let wishes: Vec<Wish<'_>> = volumes.iter().filter_map(Wish::of).collect();
        assert_eq!(fit(&disks, &wishes, &Tries::of_pass()), take(&mut disks.clone(), &wishes).is_some());
        let pieces = take(&mut disks, &wishes)?;
        let told = |piece: &v1::Resource| {
            let disk = Disk::of(piece).unwrap();
            (disk.root().to_owned(), disk.left / 1000)
        };
        Some(pieces.iter().map(told).collect())
    }

    use PersistentKind::{Mount, Path, Root};

    #[test]
    fn a_mount_goes_whole_to_one_volume_and_the_smallest_that_fits_is_taken() {
        let disks = [offered(Mount, "/c", 300, None), offered(Mount, "/a", 100, None), offered(Mount, "/b", 300, None)];
        let get = |volumes: &[PersistentVolume]| taken(&disks, volumes);
        assert_eq!(get(&[volume(Mount, 10)]).unwrap(), [("/a".to_owned(), 100)]);
        assert_eq!(get(&[volume(Mount, 101)]).unwrap(), [("/b".to_owned(), 300)]);
        let three = get(&[volume(Mount, 10), volume(Mount, 10), volume(Mount, 10)]).unwrap();
        assert_eq!(three.iter().map(|(_, size)| *size).sum::<i64>(), 700, "each its own: {three:?}");
        assert!(get(&[volume(Mount, 10), volume(Mount, 10), volume(Mount, 10), volume(Mount, 10)]).is_none());
        assert!(get(&[PersistentVolume { max_size: Some(299), ..volume(Mount, 101) }]).is_none(), "larger than it allows");
        assert!(get(&[volume(Path, 1)]).is_none() && get(&[volume(Mount, 301)]).is_none());
        assert_eq!(get(&[volume(Root, 1000)]).unwrap(), [], "another disk's affair");
        // The one that may not be larger is served first, whichever way round.
        let small = PersistentVolume { max_size: Some(100), ..volume(Mount, 1) };
        for pair in [[small.clone(), volume(Mount, 2)], [volume(Mount, 2), small]] {
            assert!(get(&pair).is_some(), "{pair:?}");
        }
    }

    #[test]
    fn paths_are_shared_the_roomiest_first_and_never_over_their_size() {
        let disks = [offered(Path, "/a", 60, None), offered(Path, "/b", 100, None), offered(Path, "/a", 40, None)];
        let get = |sizes: &[u64]| taken(&disks, &sizes.iter().map(|size| volume(Path, *size)).collect::<Vec<_>>());
        assert_eq!(get(&[50, 30]).unwrap(), [("/a".to_owned(), 50), ("/b".to_owned(), 30)]);
        assert!(get(&[100, 100]).is_some() && get(&[101]).is_none() && get(&[60, 60, 60]).is_none());
        // Largest first alone would put 50 and 50 apart and leave no room for the rest.
        assert!(get(&[50, 50, 40, 30, 30]).is_some());
        assert!(taken(&disks, &[PersistentVolume { max_size: Some(1), ..volume(Path, 5) }]).is_some(), "a bound for mounts only");
    }

    #[test]
    fn profiles_and_paths_must_be_the_disks_own() {
        let disks = [offered(Mount, "/mnt/ssd1", 100, Some("fast")), offered(Mount, "/mnt/hdd1", 200, None)];
        let get = |profile: Option<&str>, like: &[&str]| {
            let path_like = like.iter().map(|like| (*like).to_owned()).collect();
            let wanted = PersistentVolume { profile_name: profile.map(str::to_owned), path_like, ..volume(Mount, 1) };
            taken(&disks, &[wanted]).map(|taken| taken[0].0.clone())
        };
        assert_eq!(get(Some("fast"), &[]).as_deref(), Some("/mnt/ssd1"));
        assert_eq!(get(None, &[]).as_deref(), Some("/mnt/hdd1"), "a disk with a profile is for those that ask for it");
        assert_eq!(get(Some("slow"), &[]), None);
        assert_eq!(get(Some("fast"), &["/mnt/ssd."]).as_deref(), Some("/mnt/ssd1"));
        assert_eq!(get(None, &["/mnt/hdd"]), None, "the whole path must match");
        assert_eq!(get(None, &[".*hdd.*", "/data/.*"]), None, "each must match");
        assert_eq!(get(None, &["("]), None, "what cannot be read matches nothing");
    }

    #[test]
    fn what_belongs_to_others_is_no_disk_to_choose() {
        let disk = offered(Mount, "/a", 100, None);
        assert!(Disk::of(&disk).is_some());
        let mut reserved = disk.clone();
        reserved.reservations.push(v1::resource::ReservationInfo { role: Some("db".to_owned()), ..Default::default() });
        let provided = v1::Resource { provider_id: Some(v1::ResourceProviderId { value: "p".to_owned() }), ..disk.clone() };
        let revocable = v1::Resource { revocable: Some(v1::resource::RevocableInfo {}), ..disk };
        assert!([reserved, provided, revocable, scalar_entry("disk", 1)].iter().all(|resource| Disk::of(resource).is_none()));
    }

    #[test]
    fn volumes_that_cannot_all_be_placed_end_the_search_in_time() {
        let disks: Vec<v1::Resource> = (0..30).map(|n| offered(Path, &format!("/{n}"), 100, None)).collect();
        let volumes: Vec<PersistentVolume> = (0..900).map(|_| volume(Path, 51)).collect();
        assert!(taken(&disks, &volumes).is_none());
        assert_eq!(taken(&disks, &volumes[..30]).unwrap().len(), 30);
    }

    /// The tries that a search takes which finds nothing.
    fn tries_in_vain(disks: &[v1::Resource], volumes: &[PersistentVolume]) -> usize {
        let disks: Vec<Disk> = disks.iter().filter_map(Disk::of).collect();
        let wishes: Vec<Wish<'_>> = volumes.iter().filter_map(Wish::of).collect();
        let granted = MOST_TRIES + wishes.len();
        let Some(mut search) = Search::new(&disks, &wishes, granted) else { return 0 };
        assert!(!search.settle(0));
        granted - search.tries
    }

    #[test]
    fn what_counting_rules_out_is_not_searched_and_equal_disks_are_tried_once() {
        let disks: Vec<v1::Resource> = (0..7).map(|n| offered(Path, &format!("/{n}"), 100 + n, None)).collect();
        let eight: Vec<PersistentVolume> = (0..8).map(|_| volume(Path, 54)).collect();
        assert_eq!(tries_in_vain(&disks, &eight), 0, "seven pieces of more than half of a disk");
        let equal: Vec<v1::Resource> = (0..7).map(|n| offered(Path, &format!("/{n}"), 100, None)).collect();
        let volumes: Vec<PersistentVolume> = (0..7).map(|_| volume(Path, 60)).chain([volume(Path, 41)]).collect();
        let tries = tries_in_vain(&equal, &volumes);
        assert!((1..10).contains(&tries), "{tries} tries on seven disks that are all alike");
    }

    #[test]
    fn a_pass_is_bounded_whatever_is_searched_for_and_goes_on_with_what_fits_at_once() {
        // Different disks of which each takes one, and two small pieces that fit nowhere then.
        let disks: Vec<v1::Resource> = (0..7).map(|n| offered(Path, &format!("/{n}"), 100 + n, None)).collect();
        let disks: Vec<Disk> = disks.iter().filter_map(Disk::of).collect();
        let volumes: Vec<PersistentVolume> = (0..7).map(|_| volume(Path, 60)).chain([volume(Path, 50)]).collect();
        let wishes: Vec<Wish<'_>> = volumes.iter().filter_map(Wish::of).collect();
        let tries = Tries::of_pass();
        for _ in 0..10_000 {
            assert!(!fit(&disks, &wishes, &tries));
        }
        assert_eq!(tries.0.get(), 0);
        assert!(fit(&disks, &wishes[..7], &tries));
        assert!(take(&mut disks.clone(), &wishes[..7]).is_some());
    }
}
