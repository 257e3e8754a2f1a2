import{Na as n}from"./chunk-TVHAHW6A.js";function o(){return n("span",{class:"none",children:"–"})}export{o as a};
