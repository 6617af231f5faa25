//! temp
use crate::base::{SessionId, SessionRef, ShardId};
#[derive(Debug)]
pub struct Full;
#[derive(Debug)]
pub struct Table<S> {
    home: ShardId,
    slots: Vec<(u32, Option<(u128, S)>)>,
    free: Vec<u32>,
    len: usize,
}
impl<S> Table<S> {
    pub fn new(home: ShardId) -> Self {
        Self { home, slots: vec![], free: vec![], len: 0 }
    }
    pub fn open(&mut self, secret: u128, s: S) -> Result<SessionId, Full> {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push((0, None));
            (self.slots.len() - 1) as u32
        });
        let e = &mut self.slots[slot as usize];
        e.1 = Some((secret, s));
        self.len += 1;
        Ok(SessionId { home: self.home, slot, generation: e.0 & 0xffffff, secret })
    }
    pub fn get(&self, r: SessionRef) -> Option<&S> {
        let e = self.slots.get(r.slot as usize)?;
        if e.0 & 0xffffff == r.generation { e.1.as_ref().map(|x| &x.1) } else { None }
    }
    pub fn get_mut(&mut self, r: SessionRef) -> Option<&mut S> {
        let e = self.slots.get_mut(r.slot as usize)?;
        if e.0 & 0xffffff == r.generation { e.1.as_mut().map(|x| &mut x.1) } else { None }
    }
    pub fn find(&self, id: &SessionId) -> Option<SessionRef> {
        let r = SessionRef { home: id.home, slot: id.slot, generation: id.generation };
        let e = self.slots.get(r.slot as usize)?;
        (e.0 & 0xffffff == r.generation && e.1.as_ref()?.0 == id.secret).then_some(r)
    }
    pub fn close(&mut self, r: SessionRef) -> Option<S> {
        self.get(r)?;
        let e = &mut self.slots[r.slot as usize];
        e.0 += 1;
        self.free.push(r.slot);
        self.len -= 1;
        e.1.take().map(|x| x.1)
    }
    pub fn at_slot(&self, slot: u32) -> Option<SessionRef> {
        let e = self.slots.get(slot as usize)?;
        e.1.as_ref()?;
        Some(SessionRef { home: self.home, slot, generation: e.0 & 0xffffff })
    }
    pub fn iter(&self) -> impl Iterator<Item = (SessionRef, &S)> {
        self.slots.iter().enumerate().filter_map(|(i, e)| {
            Some((SessionRef { home: self.home, slot: i as u32, generation: e.0 & 0xffffff }, &e.1.as_ref()?.1))
        })
    }
    pub fn len(&self) -> usize {
        self.len
    }
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}
