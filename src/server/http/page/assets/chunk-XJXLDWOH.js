import{Ga as n}from"./chunk-7DDGN6AC.js";function o(){return n("span",{class:"none",children:"–"})}export{o as a};
