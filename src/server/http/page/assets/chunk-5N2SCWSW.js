import{za as n}from"./chunk-XVOBJS5S.js";function o(){return n("span",{class:"none",children:"–"})}export{o as a};
