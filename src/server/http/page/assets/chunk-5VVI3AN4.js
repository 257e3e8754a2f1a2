import{ra as n}from"./chunk-SY6OWDWE.js";function o(){return n("span",{class:"none",children:"–"})}export{o as a};
