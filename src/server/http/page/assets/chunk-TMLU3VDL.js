import{Ba as n}from"./chunk-UJG2BT6P.js";function o(){return n("span",{class:"none",children:"–"})}export{o as a};
