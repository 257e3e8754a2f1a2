import{ta as n}from"./chunk-QXUMZARQ.js";function o(){return n("span",{class:"none",children:"–"})}export{o as a};
