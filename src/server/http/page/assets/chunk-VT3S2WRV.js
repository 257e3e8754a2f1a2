import{Ga as n}from"./chunk-544HXNZG.js";function o(){return n("span",{class:"none",children:"–"})}export{o as a};
