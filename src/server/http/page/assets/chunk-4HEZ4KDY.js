import{Ia as n}from"./chunk-OWTIAGAM.js";function o(){return n("span",{class:"none",children:"–"})}export{o as a};
