import{ua as n}from"./chunk-3J6KJ5OI.js";function o(){return n("span",{class:"none",children:"–"})}export{o as a};
