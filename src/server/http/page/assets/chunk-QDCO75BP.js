import{Na as n}from"./chunk-LUOQZJJV.js";function o(){return n("span",{class:"none",children:"–"})}export{o as a};
