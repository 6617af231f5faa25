//! temp
use crate::data::{Key, Node};
use crate::op::Query;
pub fn filter(_n: &Node, _q: &Query) -> Node {
    Node::Empty
}
#[derive(Debug)]
pub enum Touched {
    Whole,
    Children(Vec<(Key, Node)>),
}
#[derive(Debug)]
pub struct Window;
impl Window {
    pub fn new(_q: Query, _n: &Node) -> Self {
        Self
    }
    pub fn node(&self, _n: &Node) -> Node {
        Node::Empty
    }
    pub fn update(&mut self, _n: &Node, _t: Touched) -> Vec<(Key, Node)> {
        vec![]
    }
}
