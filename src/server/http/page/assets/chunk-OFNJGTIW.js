import{ua as n}from"./chunk-Q2XZ4EYI.js";function o(){return n("span",{class:"none",children:"–"})}export{o as a};
