import{xa as n}from"./chunk-55TKXVPH.js";function o(){return n("span",{class:"none",children:"–"})}export{o as a};
