import{xa as n}from"./chunk-F5DIDH4J.js";function o(){return n("span",{class:"none",children:"–"})}export{o as a};
