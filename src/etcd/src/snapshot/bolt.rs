//! Writes a bbolt database, the file format of etcd's own store, from front to back and in little memory.
//!
//! Items come in the order of their keys, twice: a [`Planner`] hears their sizes first and so finds where every page will
//! lie, since the first pages already say where the last ones are; then [`Plan::write`] lays them. The layout is that of bbolt's
//! `page.go` and `bucket.go`: little-endian, pages of [`PAGE`] bytes with a header of 16, leaf elements of flags, position and
//! the lengths of key and value, branch elements of position, length of the key and the child's page.

/// Bytes of a page; the file says so itself, so any machine can read it.
pub(super) const PAGE: usize = 4096;
/// Two meta pages and the list of free pages come first.
pub(super) const FIRST_PAGE: u64 = 3;

const HEADER: usize = 16;
const ELEMENT: usize = 16;
const MAGIC: u32 = 0xED0C_DAED;
const FORMAT: u32 = 2;

const BRANCH: u16 = 0x01;
const LEAF: u16 = 0x02;
const META: u16 = 0x04;
const FREELIST: u16 = 0x10;

/// The flag of a leaf's element whose value is a bucket.
const BUCKET: u32 = 0x01;

/// A key and its value.
pub(super) type Item = (Vec<u8>, Vec<u8>);

/// Finds out where the pages of one bucket will lie.
#[derive(Debug)]
pub(super) struct Planner {
    next: u64,
    leaves: Vec<Child>,
    /// Bytes and items of the leaf that is being filled.
    bytes: usize,
    items: u16,
    first: Vec<u8>,
}

/// A page that a branch page refers to, or the root.
#[derive(Debug, Clone)]
struct Child {
    /// Its first key.
    key: Vec<u8>,
    page: u64,
    /// How many pages follow it that belong to it, since its one item is larger than a page.
    overflow: u32,
    /// How many items or children it holds.
    items: u16,
}

impl Planner {
    /// `first` is the page at which the bucket begins.
    pub(super) fn new(first: u64) -> Self {
        Planner { next: first, leaves: Vec::new(), bytes: HEADER, items: 0, first: Vec::new() }
    }

    /// Items come in the order of their keys.
    pub(super) fn item(&mut self, key: &[u8], value: usize) {
        let bytes = ELEMENT + key.len() + value;
        if self.items > 0 && self.bytes + bytes > PAGE {
            self.close();
        }
        if self.items == 0 {
            self.first = key.to_vec();
        }
        self.bytes += bytes;
        self.items += 1;
    }

    fn close(&mut self) {
        let pages = self.bytes.div_ceil(PAGE);
        let overflow = u32::try_from(pages - 1).unwrap_or(u32::MAX);
        self.leaves.push(Child { key: std::mem::take(&mut self.first), page: self.next, overflow, items: self.items });
        self.next += pages as u64;
        (self.bytes, self.items) = (HEADER, 0);
    }

    pub(super) fn finish(mut self) -> Plan {
        if self.items > 0 || self.leaves.is_empty() {
            self.close();
        }
        let mut levels = Vec::new();
        let mut below = self.leaves.clone();
        while below.len() > 1 {
            let above = branches(&below, &mut self.next);
            levels.push(Level { pages: above.clone(), children: below });
            below = above;
        }
        let root = below.first().map_or(self.next, |root| root.page);
        Plan { leaves: self.leaves, levels, root, end: self.next }
    }
}

/// The branch pages over a level's pages.
fn branches(below: &[Child], next: &mut u64) -> Vec<Child> {
    let mut pages: Vec<Child> = Vec::new();
    let mut bytes = PAGE;
    for child in below {
        bytes += ELEMENT + child.key.len();
        match pages.last_mut() {
            Some(page) if bytes <= PAGE => page.items += 1,
            _ => {
                pages.push(Child { key: child.key.clone(), page: *next, overflow: 0, items: 1 });
                *next += 1;
                bytes = HEADER + ELEMENT + child.key.len();
            }
        }
    }
    pages
}

/// Where the pages of a bucket lie.
#[derive(Debug)]
pub(super) struct Plan {
    leaves: Vec<Child>,
    levels: Vec<Level>,
    root: u64,
    /// The first page after it.
    pub(super) end: u64,
}

#[derive(Debug)]
struct Level {
    pages: Vec<Child>,
    children: Vec<Child>,
}

impl Plan {
    /// Lays the pages of the bucket; `items` are those that were planned with, in the same order.
    pub(super) fn write<E>(
        &self,
        items: &mut dyn Iterator<Item = Result<Item, E>>,
        lay: &mut dyn FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        for leaf in &self.leaves {
            let items: Vec<Item> = items.take(usize::from(leaf.items)).collect::<Result<_, E>>()?;
            lay(&leaf_page(leaf.page, leaf.overflow, 0, &items))?;
        }
        for level in &self.levels {
            let mut children = level.children.as_slice();
            for page in &level.pages {
                let (of_page, others) = children.split_at(usize::from(page.items).min(children.len()));
                children = others;
                lay(&branch_page(page.page, of_page))?;
            }
        }
        Ok(())
    }

    /// What the root says of this bucket.
    pub(super) fn reference(&self) -> Vec<u8> {
        reference(self.root)
    }
}

/// The value of a bucket with few items, which lie in its parent.
pub(super) fn inline(items: &[Item]) -> Vec<u8> {
    let mut value = reference(0);
    let bytes = HEADER + items.iter().map(|(key, value)| ELEMENT + key.len() + value.len()).sum::<usize>();
    value.extend(leaf_page(0, 0, 0, items).into_iter().take(bytes));
    value
}

/// Root page and sequence.
fn reference(root: u64) -> Vec<u8> {
    [root.to_le_bytes(), 0_u64.to_le_bytes()].concat()
}

/// The page that names all buckets; names in their order. They must fit.
pub(super) fn root_page(id: u64, buckets: &[Item]) -> Vec<u8> {
    leaf_page(id, 0, BUCKET, buckets)
}

/// The first three pages of a database whose root page is the last one of `pages`.
pub(super) fn first_pages(pages: u64) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..2).flat_map(|id| meta_page(id, pages)).collect();
    bytes.extend(padded(header(2, FREELIST, 0, 0), 1));
    bytes
}

fn meta_page(id: u64, pages: u64) -> Vec<u8> {
    let mut meta = Vec::with_capacity(64);
    for number in [MAGIC, FORMAT, PAGE as u32, 0] {
        meta.extend(number.to_le_bytes());
    }
    // The root bucket's page and sequence, the list of free pages, the number of pages, the transaction.
    for number in [pages - 1, 0, 2, pages, id] {
        meta.extend(number.to_le_bytes());
    }
    meta.extend(fnv1a(&meta).to_le_bytes());
    let mut page = header(id, META, 0, 0);
    page.extend(meta);
    padded(page, 1)
}

fn leaf_page(id: u64, overflow: u32, flags: u32, items: &[Item]) -> Vec<u8> {
    let mut page = header(id, LEAF, items.len(), overflow);
    let mut content = items.len() * ELEMENT;
    for (number, (key, value)) in items.iter().enumerate() {
        for number in [flags, (content - number * ELEMENT) as u32, key.len() as u32, value.len() as u32] {
            page.extend(number.to_le_bytes());
        }
        content += key.len() + value.len();
    }
    page.extend(items.iter().flat_map(|(key, value)| [key, value]).flatten());
    padded(page, overflow as usize + 1)
}

fn branch_page(id: u64, children: &[Child]) -> Vec<u8> {
    let mut page = header(id, BRANCH, children.len(), 0);
    let mut content = children.len() * ELEMENT;
    for (number, child) in children.iter().enumerate() {
        for number in [(content - number * ELEMENT) as u32, child.key.len() as u32] {
            page.extend(number.to_le_bytes());
        }
        page.extend(child.page.to_le_bytes());
        content += child.key.len();
    }
    page.extend(children.iter().flat_map(|child| &child.key));
    padded(page, 1)
}

fn header(id: u64, kind: u16, count: usize, overflow: u32) -> Vec<u8> {
    let mut page = Vec::with_capacity(PAGE);
    page.extend(id.to_le_bytes());
    page.extend(kind.to_le_bytes());
    // Items of a page are at most as many as fit into one.
    page.extend((count as u16).to_le_bytes());
    page.extend(overflow.to_le_bytes());
    page
}

fn padded(mut page: Vec<u8>, pages: usize) -> Vec<u8> {
    page.resize(pages * PAGE, 0);
    page
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_fnv_1a() {
        // From the algorithm's own table of test vectors.
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn every_page_is_laid_where_it_was_planned() {
        let items: Vec<Item> =
            (0..20_000_u32).map(|number| (number.to_be_bytes().to_vec(), vec![7; if number % 500 == 9 { 10_000 } else { 90 }])).collect();
        let mut planner = Planner::new(FIRST_PAGE);
        for (key, value) in &items {
            planner.item(key, value.len());
        }
        let plan = planner.finish();
        let mut laid = Vec::new();
        let mut items = items.into_iter().map(Ok::<_, ()>);
        let mut pages = Vec::new();
        let mut lay = |page: &[u8]| {
            assert_eq!(page.len() % PAGE, 0);
            pages.push((FIRST_PAGE + (laid.len() / PAGE) as u64, u64::from_le_bytes(page[..8].try_into().unwrap())));
            laid.extend_from_slice(page);
            Ok(())
        };
        plan.write(&mut items, &mut lay).unwrap();
        assert!(items.next().is_none());
        assert!(pages.iter().all(|(at, id)| at == id), "{pages:?}");
        assert_eq!(FIRST_PAGE + (laid.len() / PAGE) as u64, plan.end);
        assert_eq!(plan.root, plan.end - 1);
        assert!(plan.levels.len() >= 2, "branches over branches: {}", plan.levels.len());
    }
}
