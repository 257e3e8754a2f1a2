import{ua as n}from"./chunk-P2QOIBAK.js";function o(){return n("span",{class:"none",children:"–"})}export{o as a};
