import{ta as n}from"./chunk-YDIJYLJF.js";function o(){return n("span",{class:"none",children:"–"})}export{o as a};
