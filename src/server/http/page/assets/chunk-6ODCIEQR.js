import{ta as n}from"./chunk-NO7PDSKL.js";function o(){return n("span",{class:"none",children:"–"})}export{o as a};
