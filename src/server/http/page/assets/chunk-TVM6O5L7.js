import{Na as n}from"./chunk-X7WCUFKK.js";function o(){return n("span",{class:"none",children:"–"})}export{o as a};
