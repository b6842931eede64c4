//! Messages of a batch's rows, group by group, and their signatures.
//!
//! A group is small enough for its messages to stay in the first caches: columns are encoded one
//! after another into the slots of the group's rows, then all messages are hashed.

use std::cell::RefCell;
use std::ops::Range;

use crate::cbor::{HEAD_ROOM, MAP, put_head};
use crate::present::{GROUP, present};
use crate::sha::{Digest, Hasher, Span};
use crate::slots::{Name, Put, SHORT, Sizes, Slots, copy, copy_room};
use crate::text::INVALID_UTF8;
use crate::tree::{Kind, Node, Scratch};

/// Bytes that the slots of a group may take, unless one row takes more.
const GROUP_BYTES: usize = 128 << 10;

/// A top-level field.
pub struct Field {
    pub name: Name,
    pub node: Node,
}

/// The fields of one signature, in bytewise order of their encoded names.
pub struct Plan {
    pub fields: Vec<usize>,
}

/// A value that can't be signed.
#[derive(Clone, Copy, Debug)]
pub struct Bad {
    /// The row in the batch.
    pub row: usize,
    /// The index of the field.
    pub field: usize,
    pub reason: &'static str,
}

/// Memory that a thread reuses from group to group, and from batch to batch.
#[derive(Default)]
pub struct Worker {
    slots: Slots,
    /// What each row's message may take if it holds all fields, and if it holds those of a plan.
    whole_sizes: Sizes,
    sizes: Sizes,
    spans: Vec<Span>,
    encoded: Vec<Encoded>,
    /// What is known of each field.
    known: Vec<Known>,
    scratch: Scratch,
}

thread_local! {
    static WORKER: RefCell<Worker> = RefCell::default();
}

/// Do something with what this thread reuses from batch to batch.
pub fn with_worker<T>(work: impl FnOnce(&mut Worker) -> T) -> T {
    WORKER.with_borrow_mut(|worker| {
        let done = work(worker);
        worker.give_back();
        done
    })
}

/// Bytes of one kind that a thread keeps for the next batch; a few very long values don't stay.
const KEPT: usize = 4 << 20;

impl Worker {
    fn give_back(&mut self) {
        self.slots.give_back(KEPT);
        self.encoded.retain(|encoded| encoded.bytes.capacity() <= KEPT);
        self.scratch.give_back(KEPT);
    }
}

/// What is known of a column's texts in all rows that are signed in one go.
#[derive(Clone, Copy, Default)]
struct Known {
    /// They are to be checked group by group.
    doubtful: bool,
    /// All are shorter than `SHORT`, those under nulls included.
    short: bool,
}

/// The encoded values of a nested column for the rows of a group; empty where a row has none.
#[derive(Default)]
struct Encoded {
    first: usize,
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Encoded {
    fn place(&self, row: usize) -> (usize, usize) {
        let from = if row == 0 { 0 } else { self.ends[row - 1] };
        (from, self.ends[row] - from)
    }
}

impl Put for Encoded {
    #[inline(always)]
    fn put(&self, row: usize, bytes: &mut [u8], at: usize) -> usize {
        let (from, length) = self.place(row - self.first);
        copy(&self.bytes, from, length, bytes, at)
    }
}

/// Add the room of a value to each row that has one, or to all if most have, which is only more memory.
fn add_rooms(room: usize, node: &Node, group: &Range<usize>, sizes: &mut Sizes) {
    match present(node.nulls.as_ref(), group.start, group.len()) {
        Some(rows) if 2 * rows.count() < group.len() => {
            let sizes = sizes.by_row();
            rows.for_each(|row| sizes[row] += room);
        }
        _ => sizes.add(room),
    }
}

/// What signs the rows of one batch.
pub struct Signing<'a> {
    pub fields: &'a [Field],
    pub plans: &'a [Plan],
    pub hasher: &'a Hasher,
    /// Whether to encode eight values at a time where the processor can.
    pub wide: bool,
}

impl Signing<'_> {
    /// Sign `rows`: `out[plan][i]` becomes the signature of row `rows.start + i`, all zeros if the row
    /// is bad. Gives the values that can't be signed, in order of rows, then fields.
    pub fn sign(&self, rows: Range<usize>, out: &mut [&mut [Digest]], worker: &mut Worker) -> Vec<Bad> {
        let mut all_bad = Vec::new();
        // Many short texts are checked at the cost of one long one.
        worker.known.clear();
        worker.known.extend(self.fields.iter().map(|field| match &field.node.kind {
            Kind::Strings(strings) => {
                Known { doubtful: !strings.all_valid(rows.clone()), short: strings.all_short(rows.clone()) }
            }
            _ => Known::default(),
        }));
        worker.slots.choose(self.wide);
        let mut first = rows.start;
        while first < rows.end {
            let mut bad = Vec::new();
            let group = first..rows.end.min(first + GROUP);
            let group = self.prepare(group, worker, &mut bad);
            for (plan, out) in self.plans.iter().zip(out.iter_mut()) {
                let out = &mut out[group.start - rows.start..group.end - rows.start];
                self.sign_group(plan, &group, out, worker);
                for Bad { row, field, .. } in &bad {
                    if plan.fields.contains(field) {
                        out[row - group.start] = [0; 32];
                    }
                }
            }
            all_bad.append(&mut bad);
            first = group.end;
        }
        all_bad
    }

    /// Encode what is nested, check texts, and shorten the group if its messages are long.
    fn prepare(&self, group: Range<usize>, worker: &mut Worker, bad: &mut Vec<Bad>) -> Range<usize> {
        worker.encoded.resize_with(self.fields.len(), Encoded::default);
        for (field, Field { node, .. }) in self.fields.iter().enumerate() {
            match &node.kind {
                Kind::Strings(strings) if worker.known[field].doubtful => {
                    strings.check(group.clone(), node.nulls.as_ref(), &mut |row| {
                        bad.push(Bad { row, field, reason: INVALID_UTF8 });
                    });
                }
                Kind::Strings(_) | Kind::Cells(_) | Kind::Null => {}
                _ => {
                    let Encoded { first, bytes, ends } = &mut worker.encoded[field];
                    *first = group.start;
                    bytes.clear();
                    ends.clear();
                    for row in group.clone() {
                        let before = bytes.len();
                        if !node.is_null(row)
                            && let Err(reason) = node.append(row, bytes, &mut worker.scratch)
                        {
                            bad.push(Bad { row, field, reason });
                            worker.scratch.clear();
                            bytes.truncate(before);
                        }
                        ends.push(bytes.len());
                    }
                }
            }
        }
        bad.sort_unstable_by_key(|bad| (bad.row, bad.field));
        let Worker { whole_sizes, encoded, known, .. } = worker;
        self.measure(0..self.fields.len(), &group, (encoded, known), whole_sizes);
        let end = group.start + whole_sizes.fit(GROUP_BYTES);
        bad.retain(|bad| bad.row < end);
        group.start..end
    }

    /// Find how many bytes the message of each row may take.
    fn measure(
        &self,
        fields: impl Iterator<Item = usize>,
        group: &Range<usize>,
        (encoded, known): (&[Encoded], &[Known]),
        sizes: &mut Sizes,
    ) {
        sizes.begin(group.len(), HEAD_ROOM);
        for field in fields {
            let Field { name, node } = &self.fields[field];
            match &node.kind {
                Kind::Null => {}
                Kind::Cells(cells) => add_rooms(name.room(cells.room()), node, group, sizes),
                Kind::Strings(_) if known[field].short => {
                    add_rooms(name.room(HEAD_ROOM) + SHORT, node, group, sizes);
                }
                Kind::Strings(strings) => strings.rooms(group.clone(), name, node.nulls.as_ref(), sizes),
                _ => {
                    for (row, size) in sizes.by_row().iter_mut().enumerate() {
                        *size += name.room(copy_room(encoded[field].place(row).1));
                    }
                }
            }
        }
    }

    fn sign_group(&self, plan: &Plan, group: &Range<usize>, out: &mut [Digest], worker: &mut Worker) {
        let Worker { slots, whole_sizes, sizes, spans, encoded, known, .. } = worker;
        if plan.fields.len() == self.fields.len() {
            slots.arrange(whole_sizes);
        } else {
            self.measure(plan.fields.iter().copied(), group, (encoded, known), sizes);
            slots.arrange(sizes);
        }
        self.put_counts(plan, group, slots);
        for field in &plan.fields {
            let Field { name, node } = &self.fields[*field];
            let nulls = node.nulls.as_ref();
            match &node.kind {
                Kind::Null => {}
                Kind::Cells(cells) => cells.fill(group.start, name, nulls, slots),
                Kind::Strings(strings) => strings.fill(group.start, name, nulls, slots),
                _ => slots.fill(group.start, name, nulls, &encoded[*field]),
            }
        }
        slots.pad(self.hasher.keying(), spans);
        self.hasher.hash(slots.blocks(), spans, out);
    }

    /// The head of each record's map: how many of the fields are not null.
    fn put_counts(&self, plan: &Plan, group: &Range<usize>, slots: &mut Slots) {
        let mut always = 0;
        let mut counts = [0_i32; GROUP];
        let mut nowhere_null = true;
        for field in &plan.fields {
            let present = present(self.fields[*field].node.nulls.as_ref(), group.start, group.len());
            nowhere_null &= present.is_none();
            match present {
                None => always += 1,
                // Whichever are fewer.
                Some(rows) if 2 * rows.count() <= group.len() => rows.for_each(|row| counts[row] += 1),
                Some(rows) => {
                    always += 1;
                    rows.others(group.len()).for_each(|row| counts[row] -= 1);
                }
            }
        }
        if nowhere_null {
            let mut head = [0; HEAD_ROOM];
            let length = put_head(MAP, always as u64, &mut head);
            slots.each(|_, bytes, at| {
                bytes[at..at + HEAD_ROOM].copy_from_slice(&head);
                at + length
            });
            return;
        }
        slots.each(|row, bytes, at| {
            let count = (always + counts[row]) as u64;
            at + put_head(MAP, count, &mut bytes[at..at + HEAD_ROOM])
        });
    }
}
