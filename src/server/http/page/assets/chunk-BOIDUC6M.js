import{Ia as n}from"./chunk-3VCAYUYQ.js";function o(){return n("span",{class:"none",children:"–"})}export{o as a};
