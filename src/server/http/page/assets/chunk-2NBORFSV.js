import{ta as n}from"./chunk-DRA7EIQU.js";function o(){return n("span",{class:"none",children:"–"})}export{o as a};
