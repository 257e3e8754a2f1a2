import{ra as n}from"./chunk-GKG4RI4R.js";function o(){return n("span",{class:"none",children:"–"})}export{o as a};
