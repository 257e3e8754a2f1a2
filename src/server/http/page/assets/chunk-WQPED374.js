import{Fa as n}from"./chunk-6JKXTVMI.js";function o(){return n("span",{class:"none",children:"–"})}export{o as a};
