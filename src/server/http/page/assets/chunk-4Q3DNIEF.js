import{ua as n}from"./chunk-SFSSQGDM.js";function o(){return n("span",{class:"none",children:"–"})}export{o as a};
