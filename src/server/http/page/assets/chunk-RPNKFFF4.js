import{ua as n}from"./chunk-4N2RYCCD.js";function o(){return n("span",{class:"none",children:"–"})}export{o as a};
