import{Ia as n}from"./chunk-TVD2FDMT.js";function o(){return n("span",{class:"none",children:"–"})}export{o as a};
