import{Ga as n}from"./chunk-MLEEEFI6.js";function o(){return n("span",{class:"none",children:"–"})}export{o as a};
